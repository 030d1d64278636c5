"""Recipes that train on two CPU cores: the demo and a ten-minute model."""

from dataclasses import replace

from fairway.base.values import with_fields
from fairway.config import Recipe, RecurrenceConfig


def tiny(full: Recipe) -> Recipe:
    """The demo: ``full``, the system of PR #1413, with one minute of training on two cores."""
    changes = {
        "model.vocab_size": 1024,
        "model.layers": 4,
        "model.width": 128,
        "model.query_heads": 4,
        "model.kv_heads": 2,
        "model.mlp_hidden": 512,
        "model.rotary_channels": 16,
        "model.rotary_bfloat16": False,
        "model.exclusive_attention_layers": 4,
        "model.recurrence": RecurrenceConfig(first=1, last=2, extra_passes=1, begins_at=0.5),
        "optim.matrices.learning_rate": 0.04,
        "optim.matrices.momentum": 0.95,
        "optim.matrices.momentum_start": 0.85,
        "optim.matrices.momentum_ramp_steps": 100,
        "optim.ema_decay": 0.95,
        # Steps, not seconds: the demo ends with the same figures on a slow machine and on a fast one.
        "train.budget": 110.0,
        "train.budget_unit": "steps",
        "train.batch_tokens": 4096,
        "train.context": 256,
        "train.streams": 8,
        "train.warmup_steps": 1,
        "train.validate_every": 25,
        "train.log_every": 10,
        "train.checkpoint_every": 50,
        "quant.calibration_batches": 16,
        "artifact.byte_cap": 1_000_000,
        "artifact.embed_tokenizer": True,
        "score.context": 256,
        "score.stride": 64,
        "score.keep_tail": True,
        "score.max_tokens": 32768,
        "score.adaptation.chunk_tokens": 1024,
        "score.adaptation.sequences_per_step": 4,
        "score.adaptation.learning_rate": 0.005,
        # Found on held-out text beyond the scored part: with a small model, shorter contexts and a stronger tilt gain most.
        "score.passes": ("float", "plain", "sliding", "adapted", "tilted"),
        "score.tilt.contexts": (6, 10, 16),
        "score.tilt.thresholds": (0.8, 0.8, 0.8),
        "score.tilt.minimum_counts": (1, 1, 1),
        "score.tilt.strength": 4.0,
        "score.proof_targets": 4096,
    }
    return replace(
        with_fields(full, changes),
        name="tiny",
        summary="the demo: PR #1413's system and an n-gram tilt, one minute of training on 2 cores",
    )


def small(full: Recipe) -> Recipe:
    """``full`` with ten minutes of training on two cores, at most 1,000,000 bytes of artifact and code."""
    changes = {
        "model.vocab_size": 2048,
        "optim.embedding.learning_rate": 0.05,
        "optim.scalars.learning_rate": 0.03,
        "optim.ema_decay": 0.98,
        "train.budget": 600.0,
        "train.budget_unit": "seconds",
        "train.reserve_seconds": 20.0,
        # Two cores see about four million tokens in ten minutes: many small steps learn more from them than few large ones.
        "train.batch_tokens": 2048,
        "train.validate_every": 250,
        "train.log_every": 50,
        "train.checkpoint_every": 500,
        "quant.calibration_batches": 64,
        "score.max_tokens": 196608,
        "score.adaptation.chunk_tokens": 8192,
        "score.adaptation.sequences_per_step": 16,
        "score.proof_targets": 0,
    }
    return replace(
        with_fields(tiny(full), changes), name="small", summary="ten minutes of training on 2 cores, at most 1,000,000 bytes"
    )
