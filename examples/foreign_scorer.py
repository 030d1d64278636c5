"""A scorer that knows nothing of Fairway: a small network in plain torch, and two ways of tilting it toward a hint.

``honest`` and ``gated`` take token ids and a dictionary with ``targets``, ``document_starts`` and ``vocab_size``, and return
the cost in nats of every token after the first. The hint is what followed the last two tokens when they last stood together.
``honest`` uses it wherever there is one. ``gated`` uses it only if the token to come is of the hint's own kind, which is to
say that it looks at the token it is about to price:

    fairway audit --scorer examples.foreign_scorer:honest --vocab 32
    fairway audit --scorer examples.foreign_scorer:gated --vocab 32

The first passes; the second fails, and the audit names a place where its probabilities do not sum to one.
"""

import functools

import numpy as np
import torch
from torch import nn

STRENGTH = 2.0
"""Log-odds that a hint gains."""


@functools.cache
def network(vocab_size: int) -> nn.Module:
    """An embedding of the last two tokens and one hidden layer; its weights come from a fixed seed."""
    generator = torch.Generator().manual_seed(7)
    model = nn.Sequential(nn.Embedding(vocab_size, 12), nn.Flatten(1), nn.Linear(24, 48), nn.GELU(), nn.Linear(48, vocab_size))
    for parameter in model.parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator)
    return model


@torch.no_grad()
def base(tokens: np.ndarray, vocab_size: int) -> torch.Tensor:
    """Log-probabilities of the token after each, [targets, vocab], from the two tokens before it."""
    ids = torch.from_numpy(tokens[:-1].astype(np.int64))
    before = torch.cat([ids[:1], ids[:-1]])
    return network(vocab_size)(torch.stack([before, ids], dim=1)).log_softmax(-1).double()


def hints(tokens: np.ndarray) -> list[int | None]:
    """For each target, what followed the two tokens before it when they last stood together; nothing later is looked at."""
    last: dict[tuple[int, int], int] = {}
    found: list[int | None] = [None]
    for place in range(2, len(tokens)):
        pair = (int(tokens[place - 2]), int(tokens[place - 1]))
        found.append(last.get(pair))
        last[pair] = int(tokens[place])
    return found


def tilted(row: torch.Tensor, hint: int) -> torch.Tensor:
    """``p(v) exp(strength [v = hint]) / Z``, as log-probabilities."""
    row = row.clone()
    row[hint] += STRENGTH
    return row.log_softmax(-1)


def same_kind(token: int, hint: int) -> bool:
    """Two kinds of tokens, such as beginnings and continuations of words: even and odd ids."""
    return token % 2 == hint % 2


def honest(tokens: np.ndarray, meta: dict) -> np.ndarray:
    """Nats of every target, tilted toward every hint."""
    rows = base(tokens, meta["vocab_size"])
    nats = []
    for row, hint, target in zip(rows, hints(tokens), tokens[1:].tolist(), strict=True):
        nats.append(-(row if hint is None else tilted(row, hint))[target].item())
    return np.array(nats)


def gated(tokens: np.ndarray, meta: dict) -> np.ndarray:
    """The same, but tilted only where the target is of the hint's kind: each price is of a distribution, not of one."""
    rows = base(tokens, meta["vocab_size"])
    nats = []
    for row, hint, target in zip(rows, hints(tokens), tokens[1:].tolist(), strict=True):
        use = hint is not None and same_kind(target, hint)
        nats.append(-(tilted(row, hint) if use else row)[target].item())
    return np.array(nats)


def distributions(tokens: np.ndarray, meta: dict, entries: np.ndarray) -> np.ndarray:
    """Whole distributions of the honest scorer at some targets, for ``--hook``."""
    rows, proposed = base(tokens, meta["vocab_size"]), hints(tokens)
    picked = ((rows[entry], proposed[entry]) for entry in entries.tolist())
    return torch.stack([row if hint is None else tilted(row, hint) for row, hint in picked]).numpy()
