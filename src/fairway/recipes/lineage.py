"""The published systems: two roots, and the others as differences to their parents."""

from fairway.config import (
    AdamConfig,
    ModelConfig,
    MuonConfig,
    OptimConfig,
    QuantConfig,
    Recipe,
    RecurrenceConfig,
    SchemeConfig,
    ScoreConfig,
    TrainConfig,
)
from fairway.recipes import document_techniques as d
from fairway.recipes import techniques as t
from fairway.recipes.technique import System


def baseline() -> Recipe:
    """The challenge's own baseline: 9 plain layers, 1,024 pieces, int8 rounding; about 1.2244 bpb on its hardware."""
    return Recipe(
        name="baseline",
        summary="the challenge's own baseline: 9 layers, 1,024 pieces, int8 rounding",
        data_variant="sp1024",
        model=ModelConfig(
            vocab_size=1024,
            layers=9,
            mlp_hidden=1024,
            activation_slope=0.0,
            rotary_channels=64,
            rotary_bfloat16=False,
            query_gain=1.5,
            exclusive_attention_layers=0,
            depth_scale=False,
            skip_gates=False,
            recurrence=RecurrenceConfig(extra_passes=0),
        ),
        optim=OptimConfig(
            matrices=MuonConfig(
                learning_rate=0.04,
                momentum=0.95,
                momentum_start=0.85,
                momentum_ramp_steps=500,
                weight_decay=0.0,
                row_normalize=False,
            ),
            embedding=AdamConfig(learning_rate=0.05, weight_decay=0.0),
            scalars=AdamConfig(learning_rate=0.04, weight_decay=0.0),
            gradient_clip=0.0,
            # 1,200 steps of the about 13,800 that the baseline takes in ten minutes.
            warmdown=0.087,
            ema_decay=0.0,
        ),
        train=TrainConfig(batch_tokens=524288, context=1024, loader="contiguous", reserve_seconds=0.0, validate_every=1000),
        quant=QuantConfig(
            # The baseline clips at the 99.99984 % quantile of each row, 4.8 standard deviations of a Gaussian row.
            attention=SchemeConfig(method="round", bits=8, clip_sigmas=4.8),
            mlp=SchemeConfig(method="round", bits=8, clip_sigmas=4.8),
            embedding=SchemeConfig(method="round", bits=8, clip_sigmas=4.8),
        ),
        score=ScoreConfig(passes=("float", "plain"), context=1024, keep_tail=False),
    )


def pr1394() -> Recipe:
    """PR #1394: 11 layers with a looped pair, XSA everywhere, gated skips, GPTQ with SDClip; 1.08563 bpb."""
    return Recipe(
        name="pr1394",
        summary="PR #1394: 11 layers, layers 4-5 looped, XSA, gated skips, GPTQ with SDClip; 1.08563 bpb",
        score=ScoreConfig(passes=("float", "plain", "sliding"), keep_tail=False),
    )


SYSTEMS: dict[str, System] = {
    "pr1413": System(
        summary="PR #1413: PR #1394 with query gain 5 and score-first SGD adaptation; 1.08279 bpb",
        parent="pr1394",
        techniques=(t.QUERY_GAIN, t.SGD_ADAPTATION),
    ),
    "pr1533": System(
        summary="PR #1533: 17 block applications, two decoupled lanes, parameter banks; 1.07905 bpb",
        parent="pr1413",
        techniques=(t.THREE_LOOPED_LAYERS, t.DECOUPLED_LANES, t.BANKS, t.MORE_DECAY, t.MUON_RATE_22),
    ),
    "pr1776": System(
        summary="PR #1776: 17 block applications, single-stream parallel layers, frozen blocks in adaptation; 1.08083 bpb",
        parent="pr1413",
        techniques=(
            t.THREE_LOOPED_LAYERS,
            t.SINGLE_STREAM,
            t.QUERY_GAIN_525,
            t.MORE_DECAY,
            t.MUON_RATE_22,
            t.LONGER_WARMDOWN,
            t.FROZEN_BLOCKS,
            t.OTHER_EXPORT,
        ),
    ),
    "pr1557": System(
        summary="PR #1557: 20 block applications, cross-routed lanes, Hessian-aware clips, 5 epochs, n-gram tilt; 1.07730 bpb",
        parent="pr1413",
        techniques=(
            t.THREE_LOOPED_LAYERS,
            t.FOURTH_PASS,
            t.ROUTED_LANES,
            t.BANKS,
            t.MORE_DECAY,
            t.FAST_MUON,
            t.HESSIAN_CLIP,
            t.FIVE_EPOCHS,
            t.TILT,
        ),
    ),
    "pr1855": System(
        summary="PR #1855: CaseOps, packed documents, gates, int7 embedding, adapters per document; 1.06108 bpb",
        parent="pr1413",
        techniques=(
            d.CASEOPS,
            t.THREE_LOOPED_LAYERS,
            d.LATE_ROUTED_LANES,
            t.BANKS,
            t.QUERY_GAIN_525,
            d.MUON_RATE_26,
            d.POLAR_EXPRESS,
            d.LONGER_ADAM_MEMORY,
            d.FLOORED_WARMDOWN,
            d.SMEAR_GATE,
            d.ATTENTION_GATES,
            d.PACKED_DOCUMENTS,
            d.INT7_EMBEDDING,
            d.CLASS_CLIPS,
            d.INT8_GATES,
            d.LOW_RANK_REPAIR,
            d.DOCUMENT_ADAPTERS,
        ),
    ),
    "pr2140": System(
        summary="PR #2140, corrected: progressive context, protected columns, finer chunks, token-only tilt; 1.05702 bpb",
        parent="pr1855",
        techniques=(
            d.SLOPE_03,
            d.OWN_SOFTCAPS,
            d.PROGRESSIVE_CONTEXT,
            d.SHORT_CALIBRATION,
            d.PROTECTED_COLUMNS,
            d.FINER_CHUNKS,
            d.DOCUMENT_TILT,
        ),
    ),
    "frontier": System(
        summary="PR #2140 in a form that can be proved, without its inert settings",
        parent="pr2140",
        techniques=(d.STRICT_ORDER, d.ONE_SOFTCAP, d.WEIGHTED_REPAIR),
    ),
}
"""The published systems that are told as differences. Scores are those of their logs on 8xH100 and FineWeb."""
