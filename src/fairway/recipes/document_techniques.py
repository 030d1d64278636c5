"""The techniques of PR #1855 and PR #2140: gates, documents as rows, and what goes with them.

Of PR #1855 the settings are those that its successor kept, for all that is known to be the same in both.
"""

from fairway.recipes import tilts
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
PACKED_DOCUMENTS = Technique(
    name="packed-documents",
    title="documents as rows: one packed row per stream, attention inside documents",
    why="no token is spent on attending to another document, and training sees what scoring will",
    source="PR #1530, PR #1855",
    changes={"train.loader": "packed_documents", "score.packed_tokens": 65_536},
)
PROGRESSIVE_CONTEXT = Technique(
    name="progressive-context",
    title="contexts of 1,024, then 2,048, then 3,072 tokens, and 3,072 in scoring",
    why="short rows are cheap while the network is still learning short things",
    source="PR #2014, PR #2140",
    changes={
        "train.context": 3072,
        "train.context_lengths": (1024, 2048, 3072),
        "train.context_until": (0.1, 0.7),
        "score.context": 3072,
        "score.packed_tokens": 21 * 3072,
    },
)
POLAR_EXPRESS = Technique(
    name="polar-express",
    title="Newton-Schulz with the coefficients of Polar Express",
    why="singular values of the update end nearer to 1 in as many iterations",
    source="arXiv 2505.16932, PR #1855",
    changes={"optim.matrices.coefficients": "polar_express"},
)
INT7_EMBEDDING = Technique(
    name="int7-embedding",
    title="embedding in 7 bits, clipped at 14 sigmas",
    why="half a megabyte for other parameters; the embedding is an eighth of the network",
    source="PR #1855",
    changes={"quant.embedding.bits": 7, "quant.embedding.clip_sigmas": 14.0},
)
CLASS_CLIPS = Technique(
    name="class-clips",
    title="clips of 13 sigmas for attention and 11.5 for MLPs",
    why="a finer grid where the weights are many, a wider one where outliers carry more",
    source="PR #1855",
    changes={"quant.attention.clip_sigmas": 13.0, "quant.mlp.clip_sigmas": 11.5},
)
INT8_GATES = Technique(
    name="int8-gates",
    title="attention gates in 8 bits",
    why="a thousand numbers that tolerate rounding",
    source="PR #1855",
    changes={"quant.gates": "int8"},
)
LOW_RANK_REPAIR = Technique(
    name="low-rank-repair",
    title="low-rank repair of the three matrices with the largest error",
    why="what quantization does to a matrix is partly of low rank",
    source="PR #1797, PR #1855",
    changes={"quant.repair.tensors": 3, "quant.repair.weighting": "published"},
)
SHORT_CALIBRATION = Technique(
    name="short-calibration",
    title="16 calibration batches in a reserve of 4 seconds",
    why="eight seconds more of training; Hessians from 12 million tokens are as good as from 50",
    source="PR #2140",
    changes={"quant.calibration_batches": 16, "train.reserve_seconds": 4.0},
)
PROTECTED_COLUMNS = Technique(
    name="protected-columns",
    title="one group of 64 columns in 8 bits, where large inputs meet large weights",
    why="the columns that matter most keep a finer grid",
    source="PR #1908, PR #2140",
    changes={"quant.protection.groups": 1},
)
DOCUMENT_ADAPTERS = Technique(
    name="document-adapters",
    title="adapters per document, score first, and three phases of the whole network, in the published order",
    why="each document teaches a small correction of its own while it is scored; some of it stays in A",
    source="PR #1530, PR #1626, PR #1855",
    changes={
        "score.mode": "as_published",
        "score.passes": ("float", "plain", "documents"),
        "score.documents.lanes": 64,
        "score.documents.chunk_sizes": (48,),
        "score.documents.chunk_limits": (),
        "score.documents.learning_rate": 1e-4,
        "score.documents.phases": 3,
    },
)
FINER_CHUNKS = Technique(
    name="finer-chunks",
    title="chunks of 16, 32 or 64 targets by length, 24 documents side by side, one phase",
    why="short documents learn before they end; one phase costs less time than three",
    source="PR #2014, PR #2140",
    changes={
        "score.documents.lanes": 24,
        "score.documents.chunk_sizes": (16, 32, 64),
        "score.documents.chunk_limits": (256, 2000),
        "score.documents.learning_rate": 7.5e-5,
        "score.documents.phases": 1,
        "score.documents.global_context": 3072,
    },
)
DOCUMENT_TILT = Technique(
    name="document-tilt",
    title="token-only n-gram tilt of the adapted documents, inside the clock",
    why="what followed the same tokens before is made likelier, in other documents too",
    source="PR #2140, corrected",
    changes={"score.passes": ("float", "plain", "documents", "documents_tilted"), "score.tilt": tilts.PR2140},
)
STRICT_ORDER = Technique(
    name="strict-order",
    title="documents in stream order, hints in coding order, no decision from a length that is not known yet",
    why="a decoder can follow, so the score can be proved",
    source="own",
    changes={"score.mode": "strict"},
)
WEIGHTED_REPAIR = Technique(
    name="weighted-repair",
    title="low-rank repair weighted by the Hessian, kept where it helps",
    why="what counts is the error of the outputs, and no result hangs on the sign of a singular vector",
    source="own; LQER, arXiv 2402.02446",
    changes={"quant.repair.weighting": "hessian"},
)
ONE_SOFTCAP = Technique(
    name="one-softcap",
    title="one bound of the logits, as in training",
    why="two bounds that nothing moves are two numbers to carry for nothing",
    source="own",
    changes={"model.asymmetric_softcap": "off"},
)
