"""The techniques of the published systems, in the field's words.

Where a pull request's text and its logs disagree, the values are the logs'. The whys say what a technique is meant to do; what
each is worth is measured, not promised: ``fairway ablate``.
"""

from fairway.recipes import tilts
from fairway.recipes.technique import Technique

ALL_PASSES = ("float", "plain", "sliding", "adapted")

QUERY_GAIN = Technique(
    name="query-gain",
    title="query gain 5",
    why="sharper attention from the first step, since queries and keys are normalised",
    source="PR #1413",
    changes={"model.query_gain": 5.0},
)
SGD_ADAPTATION = Technique(
    name="sgd-adaptation",
    title="score-first SGD adaptation",
    why="the weights follow the text: every chunk is scored, then trained on for three epochs",
    source="PR #461, PR #1413",
    changes={"score.passes": ALL_PASSES},
)
THREE_LOOPED_LAYERS = Technique(
    name="three-looped-layers",
    title="depth recurrence over layers 3 to 5, from 35 % of training: 17 block applications",
    why="two more applications of weights that are paid for already, early enough to be learned",
    source="PR #1533",
    changes={"model.recurrence.first": 3, "model.recurrence.last": 5, "model.recurrence.begins_at": 0.35},
)
FOURTH_PASS = Technique(
    name="fourth-pass",
    title="a fourth pass through the looped layers: 20 block applications",
    why="more depth for no bytes, at 17 % fewer steps in the same time",
    source="PR #1557",
    changes={"model.recurrence.extra_passes": 3},
)
SINGLE_STREAM = Technique(
    name="single-stream",
    title="attention and MLP read one input from layer 7 on",
    why="both branches of a layer can run side by side, and no layer waits for its own attention",
    source="PR #1776",
    changes={"model.residual.topology": "single_stream", "model.residual.parallel_from": 7},
)
DECOUPLED_LANES = Technique(
    name="decoupled-lanes",
    title="two decoupled lanes from layer 7 on, merged by one learned number",
    why="an attention stream and an MLP stream that each keep their own features to the end",
    source="PR #1523, PR #1533",
    changes={"model.residual.topology": "decoupled_lanes", "model.residual.parallel_from": 7},
)
ROUTED_LANES = Technique(
    name="routed-lanes",
    title="two cross-routed lanes from layer 7 on",
    why="attention and MLP write to both streams with learned weights, so the lanes can share what helps",
    source="PR #1529, PR #1557",
    changes={"model.residual.topology": "routed_lanes", "model.residual.parallel_from": 7},
)
BANKS = Technique(
    name="banks",
    title="parameter banks with sharded Muon",
    why="one batched orthogonalisation per shape, gradients scattered while they are summed; the maths is the same",
    source="PR #1523, PR #1533",
    changes={"optim.matrices.layout": "banked"},
)
MORE_DECAY = Technique(
    name="more-decay",
    title="weight decay 0.095 for matrices and embedding",
    why="smaller weights quantize and compress better",
    source="PR #1533",
    changes={"optim.matrices.weight_decay": 0.095, "optim.embedding.weight_decay": 0.095},
)
MUON_RATE_22 = Technique(
    name="muon-rate-0.022",
    title="Muon learning rate 0.022",
    why="a little faster, against the stronger decay",
    source="PR #1533",
    changes={"optim.matrices.learning_rate": 0.022},
)
FAST_MUON = Technique(
    name="fast-muon",
    title="Muon learning rate 0.03 with momentum 0.97",
    why="longer steps with a shorter memory, for fewer steps in the same time",
    source="PR #1557",
    changes={"optim.matrices.learning_rate": 0.03, "optim.matrices.momentum": 0.97},
)
QUERY_GAIN_525 = Technique(
    name="query-gain-5.25",
    title="query gain 5.25",
    why="sharper attention still",
    source="PR #1776",
    changes={"model.query_gain": 5.25},
)
LONGER_WARMDOWN = Technique(
    name="longer-warmdown",
    title="warm-down over 72 % of training, weight average with decay 0.9965",
    why="more of the run at falling rates, and an average that follows them sooner",
    source="PR #1776",
    changes={"optim.warmdown": 0.72, "optim.ema_decay": 0.9965},
)
FROZEN_BLOCKS = Technique(
    name="frozen-blocks",
    title="adaptation of the last two blocks, the embedding and the skips alone",
    why="fewer weights to move, in four rows per rank and step; windows go to the chunk of their last target",
    source="PR #1776",
    changes={
        "score.adaptation.frozen_blocks": 9,
        "score.adaptation.sequences_per_step": 32,
        "score.adaptation.window_key": "last_input",
    },
)
OTHER_EXPORT = Technique(
    name="other-export",
    title="its own export of the data",
    why="another tokenizer of 8,192 pieces and other token counts; scores compare in bits per byte alone",
    source="PR #1776",
    changes={"data_variant": "sp8192-pr1776"},
)
HESSIAN_CLIP = Technique(
    name="hessian-clip",
    title="Hessian-aware SDClip, lambda 0.175",
    why="rows whose weights meet strong inputs get a wider grid",
    source="PR #1412, PR #1557",
    changes={f"quant.{part}.importance": 0.175 for part in ("attention", "mlp", "embedding")},
)
FIVE_EPOCHS = Technique(
    name="five-epochs",
    title="five epochs of adaptation per chunk",
    why="more is learned from each chunk that was scored",
    source="PR #1557",
    changes={"score.adaptation.epochs": 5},
)
TILT = Technique(
    name="tilt",
    title="n-gram tilt over contexts of 8 to 16 tokens",
    why="what followed the same tokens before is made likelier: text repeats itself beyond the window's reach",
    source="PR #1437, PR #1557",
    changes={"score.passes": (*ALL_PASSES, "tilted"), "score.tilt": tilts.PR1557},
)
