"""Any full-size recipe at laptop size, with every technique kept on."""

import math
from dataclasses import replace

from fairway.base.values import with_fields
from fairway.config import Recipe, RecurrenceConfig

PROXY_LAYERS = 8
"""As few as tell two looped layers from three, and leave parallel layers behind them."""
PROXY_WIDTH, PROXY_HEADS = 64, 4
PROXY_STEPS = 300
PROXY_CONTEXT = 256
SHORTER = 15
"""A full run takes about 4,600 steps."""


def _power_of_two(length: float) -> int:
    """The largest power of two that is not above ``length``: it divides every row."""
    return 1 << int(math.log2(length))


def _documents(full: Recipe) -> dict[str, object]:
    """Settings of the adaptation per document, for short documents and a narrow network."""
    documents, width = full.score.documents, full.model.width
    return {
        "score.documents.lanes": 8,
        "score.documents.chunk_sizes": tuple(size // 2 for size in documents.chunk_sizes),
        "score.documents.chunk_limits": tuple(limit // 8 for limit in documents.chunk_limits),
        "score.documents.rank": max(1, documents.rank * PROXY_WIDTH // width),
        "score.documents.alpha": documents.alpha * PROXY_WIDTH / width,
        "score.documents.prefix_documents": 32,
        "score.documents.global_chunk_tokens": 4096,
        "score.documents.global_context": PROXY_CONTEXT,
    }


def proxy(full: Recipe) -> Recipe:
    """``full`` with a narrow network, short rows and small batches; no technique is switched off.

    Depths keep their place as a share of the network: layer ``i`` of ``L`` becomes ``round(i * 8 / L)``. Learning
    rates, clips, decays and the shapes of all schedules stay; windows of time become shares of the shorter run.
    Scores compare recipes with each other on the same data, never with a leaderboard.
    """
    model, loop = full.model, full.model.recurrence
    layers = min(PROXY_LAYERS, model.layers)

    def depth(layer: int) -> int:
        return min(layers - 1, round(layer * layers / model.layers))

    recurrence = (
        replace(loop, first=depth(loop.first), last=depth(loop.last))
        if loop.extra_passes
        else RecurrenceConfig(first=0, last=0, extra_passes=0)
    )
    train = full.train
    changes = {
        "model.vocab_size": 1024,
        "model.layers": layers,
        "model.width": PROXY_WIDTH,
        "model.query_heads": PROXY_HEADS,
        "model.kv_heads": 2,
        "model.mlp_hidden": PROXY_WIDTH * model.mlp_hidden // model.width,
        "model.rotary_channels": max(2, PROXY_WIDTH // PROXY_HEADS * model.rotary_channels // model.head_width // 2 * 2),
        "model.exclusive_attention_layers": -(-model.exclusive_attention_layers * layers // model.layers),
        "model.recurrence": recurrence,
        "model.residual.parallel_from": depth(model.residual.parallel_from),
        "optim.matrices.momentum_ramp_steps": 100,
        # A short run cannot forget its initial weights through an average over 300 steps.
        "optim.ema_decay": 1 - SHORTER * (1 - full.optim.ema_decay) if full.optim.ema_decay else 0.0,
        # Steps, so that all recipes see the same data, and a run ends with the same figures on any machine.
        "train.budget": float(PROXY_STEPS),
        "train.budget_unit": "steps",
        "train.batch_tokens": 4096,
        "train.context": PROXY_CONTEXT,
        "train.context_lengths": tuple(_power_of_two(PROXY_CONTEXT * c / train.context) for c in train.context_lengths),
        "train.context_rewarm_steps": -(-train.context_rewarm_steps // SHORTER),
        "train.streams": 8,
        "train.warmup_steps": 2,
        "train.validate_every": 0,
        "train.log_every": 20,
        "train.checkpoint_every": 100,
        "quant.calibration_batches": 32,
        "quant.protection.columns": full.quant.protection.columns * PROXY_WIDTH // model.width,
        "artifact.byte_cap": 1_000_000,
        "score.context": PROXY_CONTEXT,
        "score.stride": 64,
        "score.packed_tokens": full.score.packed_tokens * PROXY_CONTEXT // full.score.context,
        "score.keep_tail": True,
        "score.max_tokens": 131072,
        "score.adaptation.chunk_tokens": 4096,
        "score.adaptation.sequences_per_step": 16,
        "score.adaptation.frozen_blocks": depth(full.score.adaptation.frozen_blocks),
        **_documents(full),
    }
    return replace(
        with_fields(full, changes), name=f"proxy-{full.name}", summary=f"{full.name} at laptop size, every technique kept on"
    )
