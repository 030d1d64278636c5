"""The techniques of PR #1855 and PR #2140: gates, documents as rows, and what goes with them.

Of PR #1855 the settings are those that its successor kept, for all that is known to be the same in both.
"""

from fairway.recipes.technique import Technique

CASEOPS = Technique(
    name="caseops",
    title="text in small letters with operators for capitals",
    why="a word has one spelling wherever it stands, so pieces and embeddings are shared",
    source="PR #1729, PR #1855",
    changes={"data_variant": "sp8192-caseops"},
)
LATE_ROUTED_LANES = Technique(
    name="late-routed-lanes",
    title="two cross-routed lanes from layer 8 on; the opening skip reaches the attention lane alone",
    why="lanes for the last three layers; one more layer on a single stream",
    source="PR #1529, PR #1855",
    changes={
        "model.residual.topology": "routed_lanes",
        "model.residual.parallel_from": 8,
        "model.residual.opening_skip": "attention_lane",
    },
)
MUON_RATE_26 = Technique(
    name="muon-rate-0.026",
    title="Muon learning rate 0.026 with momentum 0.97, weight decay 0.095",
    why="between the rates of PR #1533 and PR #1557, with the shorter memory",
    source="PR #1855",
    changes={
        "optim.matrices.learning_rate": 0.026,
        "optim.matrices.momentum": 0.97,
        "optim.matrices.weight_decay": 0.095,
    },
)
LONGER_ADAM_MEMORY = Technique(
    name="adam-beta2-0.99",
    title="AdamW with beta2 0.99",
    why="a steadier second moment for the embedding and the scalars",
    source="PR #1855",
    changes={"optim.embedding.beta2": 0.99, "optim.scalars.beta2": 0.99},
)
FLOORED_WARMDOWN = Technique(
    name="floored-warmdown",
    title="warm-down over 85 % of training to a tenth of the rate, weight average with decay 0.9965",
    why="falling rates almost from the start, and steps that still move something at the end",
    source="PR #1855",
    changes={"optim.warmdown": 0.85, "optim.learning_rate_floor": 0.1, "optim.ema_decay": 0.9965},
)
SMEAR_GATE = Technique(
    name="smear-gate",
    title="SmearGate, masked where a document begins",
    why="a token carries some of the one before it, so that the first layer already sees pairs",
    source="PR #1667, PR #1851",
    changes={"model.gates.smear": True},
)
ATTENTION_GATES = Technique(
    name="attention-gates",
    title="sparse attention gates over 12 channels",
    why="a head can be silent where it has nothing to say",
    source="PR #1787",
    changes={"model.gates.attention": True},
)
SLOPE_03 = Technique(
    name="slope-0.3",
    title="slope 0.3 of LeakyReLU squared, in training and in scoring",
    why="a flatter negative side; the published kernel trained with a slope 0.5 % off the one it scored with",
    source="PR #2140",
    changes={"model.activation_slope": 0.3},
)
OWN_SOFTCAPS = Technique(
    name="own-softcaps",
    title="a bound of the logits for each sign",
    why="kept for the parameters of the published network; no optimizer moved them, so they change nothing",
    source="PR #2140",
    changes={"model.asymmetric_softcap": "fixed"},
)
