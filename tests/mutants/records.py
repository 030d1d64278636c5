"""Breaches that are in byte tables, files, clocks and claims rather than in a scorer, and the honest ones beside them."""

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.corpus_helpers import train_challenge_model
from fairway.audit.accounting import byte_accounting
from fairway.audit.caps import size, wall_clock
from fairway.audit.finding import Condition, Finding
from fairway.base.errors import DataError
from fairway.data.ledger import encode_document, encode_documents
from fairway.data.tokenizer import BOS, Tokenizer, train_tokenizer
from fairway.record.claim import claim_audit
from fairway.record.figures import Claim, GapClaim, SeedFigures
from fairway.record.statistics import Summary
from fairway.record.units import TextSize, Unit, per_bpb

CAP = 16_000_000
TEXT = TextSize(40_540_160, 151_078_222)
"""Targets and bytes of a published validation export."""
TEXTS = (
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.\n",
    "  def walk(tokens):\n    return [token for token in tokens if token]\n",
    "A naïve café in Łódź \U0001f980 sells crab, 漢字 and Istanbul tea.\n",
)
SPREAD = (0.0, 0.0006, -0.0004, 0.0002, 0.0009, -0.0007, 0.0011)
"""What seven seeds differ by, in bits per byte."""

Charges = Callable[[str], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Record:
    """A record, what is wrong with it, and the test that must say so; one without a breach is honest."""

    title: str
    check: Callable[[], Finding]
    letter: str
    breach: str = ""
    condition: Condition | None = None
    says: str = ""
    """What the table adds about the breach."""


TRAINING_TEXTS = [text.replace("\U0001f980", "") for text in TEXTS] * 20
"""The crab is left out, so that a model has to spell it in bytes."""


@functools.cache
def lossless() -> Tokenizer:
    """A small model of the package's own kind."""
    return train_tokenizer(TRAINING_TEXTS, 330)


@functools.cache
def lossy() -> Tokenizer:
    """A model that folds case, composes letters and drops spaces before it cuts the text."""
    return Tokenizer(train_challenge_model(TRAINING_TEXTS, vocab_size=320, normalization_rule_name="nmt_nfkc_cf"))


def own_bytes(tokenizer: Tokenizer, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of a document, and the bytes of the text that the package charges to each."""
    document = encode_document(tokenizer, text)
    return document.tokens.astype(np.int64), document.byte_costs.astype(np.int64)


def honest_bytes(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The same; a text that does not come back from its tokens is refused, as the data builder refuses it."""
    document = encode_documents(lossless(), [text])[0]
    if document is None:
        raise DataError(f"the text {text[:20]!r} does not come back from its tokens; leave it out")
    return document.tokens.astype(np.int64), document.byte_costs.astype(np.int64)


def bytes_by(charge: Charges, tokenizer: Callable[[], Tokenizer] = lossless) -> Finding:
    """Test Y on documents, and on its own difficult texts, that are charged by ``charge``."""
    encoded = [charge(text) for text in TEXTS]
    tokens = np.concatenate([ids for ids, _ in encoded]).astype(np.uint16)
    costs = np.concatenate([cost for _, cost in encoded]).astype(np.uint16)
    return byte_accounting(tokenizer(), tokens, costs, np.flatnonzero(tokens == BOS), charge=charge)


def charged(extra: Callable[[bytes, str], int]) -> Charges:
    """The honest rule with something added for each token, given its bytes and its kind."""

    def charge(text: str) -> tuple[np.ndarray, np.ndarray]:
        tokens, costs = honest_bytes(text)
        model = lossless()
        return tokens, costs + np.array([extra(model.surfaces[token], model.kinds[token]) for token in tokens])

    return charge


def with_sentinels(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Capitals become a sentinel and a small letter, and both are charged as they stand."""
    return honest_bytes("".join(f"\ue001{letter.lower()}" if letter.isupper() else letter for letter in text))


def lowered(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The tokens are those of the text in small letters, the bytes those of the text; what is lost is free."""
    tokens, costs = honest_bytes(text.lower())
    costs[-1] += len(text.encode()) - costs.sum()
    return tokens, costs


def sized(artifact: int, code: int, cap: int = CAP, stated: int | None = None) -> Finding:
    """Test Z on two files of the given lengths."""
    with tempfile.TemporaryDirectory(prefix="fairway-mutants-") as folder:
        files = [Path(folder) / name for name in ("model.fwz", "code.py")]
        for path, length in zip(files, (artifact, code), strict=True):
            with path.open("wb") as file:
                file.truncate(length)
        return size(files[0], files[1], cap, None if stated is None else {"total_bytes": stated})


def timed(train: float, hints: float, score: float, *, hints_counted: bool = True) -> Finding:
    """Test W on a clock of the reference machine."""
    clock = {
        "train": {"seconds": train, "counted": True},
        "hints": {"seconds": hints, "counted": hints_counted},
        "tilted": {"seconds": score, "counted": True},
    }
    return wall_clock(clock, "NVIDIA H100 80GB HBM3", 8)


def seeds(count: int = 3) -> tuple[SeedFigures, ...]:
    """Figures of believable runs."""
    values = [round(1.0700 + spread, 6) for spread in SPREAD[:count]]
    per_token = per_bpb(Unit.NATS_PER_TOKEN, TEXT)
    return tuple(
        SeedFigures(
            seed=str(number),
            bits_per_byte=value,
            nats_per_token=value * per_token,
            tokens=TEXT.tokens,
            bytes=TEXT.bytes,
            model_bytes=15_960_000 + number,
            code_bytes=20_000,
            total_bytes=15_980_000 + number,
            train_seconds=588.1,
            eval_seconds=430.0,
            configuration="c",
            code="s",
        )
        for number, value in enumerate(values)
    )


def claimed(
    evidence: tuple[SeedFigures, ...], stated: tuple[SeedFigures, ...] | None = None, gap: float | None = None, made: int = 0
) -> Finding:
    """Test Q on a claim about ``stated`` seeds, by default those of the logs."""
    stated = stated or evidence
    values = [float(seed.bits_per_byte or 0.0) for seed in stated]
    claim = Claim(name="claim", bits_per_byte=float(np.mean(values)), seeds=stated, seed_names=tuple(s.seed for s in stated))
    reference = Summary.of([value + 0.004 for value in values], Unit.BPB, TEXT)
    gaps = [] if gap is None else [GapClaim(reference=reference, gap=gap, unit=Unit.NATS_PER_TOKEN)]
    runs = [float(seed.bits_per_byte or 0.0) for seed in seeds(made)]
    return claim_audit(claim, evidence, every_run=runs, gaps=gaps)


def lowest(count: int, made: int) -> tuple[SeedFigures, ...]:
    """The best of the runs that were made."""
    return tuple(sorted(seeds(made), key=lambda seed: float(seed.bits_per_byte or 0.0))[:count])


def changed(**figures: object) -> tuple[SeedFigures, ...]:
    """Three runs, the last with other figures."""
    return (*seeds()[:2], replace(seeds()[2], **figures))


HONEST = (
    Record("bytes of the text itself", lambda: bytes_by(honest_bytes), "Y"),
    Record("16,000,000 bytes, the cap", lambda: sized(15_980_000, 20_000, stated=16_000_000), "Z"),
    Record("588 s of training, 28 s of hints, 560 s of scoring", lambda: timed(588.0, 28.0, 560.0), "W"),
    Record("three seeds with their logs, gap in its own unit", lambda: claimed(seeds(), gap=0.004 * 2.583104), "Q"),
)

RECORDS = (
    Record(
        "leading space counted twice",
        lambda: bytes_by(charged(lambda surface, kind: int(surface[:1] == b" "))),
        "Y", "V15", "bytes", "one byte more for every token that begins with a space",
    ),
    Record(
        "byte fallback counted as U+FFFD",
        lambda: bytes_by(charged(lambda surface, kind: 2 * (kind == "byte"))),
        "Y", "V16", "bytes", "three bytes for every token that stands for one",
    ),
    Record(
        "space counted as U+2581",
        lambda: bytes_by(charged(lambda surface, kind: 2 * (surface == b" "))),
        "Y", "V17", "bytes", "three bytes for a lone space; a model without that piece is refused when it is loaded",
    ),
    Record(
        "sentinels of a transform counted", lambda: bytes_by(with_sentinels),
        "Y", "V18", "bytes", "bytes of the transformed text instead of the original's",
    ),
    Record(
        "lossy tokenization", lambda: bytes_by(functools.partial(own_bytes, lossy()), lossy),
        "Y", "V19", "bytes", "case folded and spaces dropped before the text is cut; no decoder brings the text back",
    ),
    Record(
        "lossy tokenization of equal length", lambda: bytes_by(lowered),
        "Y", "V19", "bytes", "capitals become small letters, every byte is charged; shown by a text whose capitals are known",
    ),
    Record(
        "601 s of training", lambda: timed(601.2, 28.0, 430.0),
        "W", "V26", "budget", "steps forced beyond the cap, as in PR #1908",
    ),
    Record(
        "hint tables outside the clock", lambda: timed(588.0, 28.0, 580.0, hints_counted=False),
        "W", "V26", "budget", "validation text is read while nothing counts",
    ),
    Record(
        "16,000,001 bytes", lambda: sized(15_980_001, 20_000),
        "Z", "V27", "budget", "one byte over the cap",
    ),
    Record(
        "16 MiB taken for the cap", lambda: sized(16_084_685 - 20_000, 20_000),
        "Z", "V27", "budget", "16,084,685 bytes, as in PR #1399",
    ),
    Record(
        "size stated without the code", lambda: sized(15_980_000, 20_000, stated=15_980_000),
        "Z", "V27", "budget", "the files have more bytes than the result says",
    ),
    Record(
        "helper files not counted", lambda: claimed(changed(helper_bytes=29_147)),
        "Q", "V27", "claim", "the run needs files that are not in its total, as in PR #2140",
    ),
    Record(
        "the five lowest of seven seeds", lambda: claimed(lowest(5, 7), made=7),
        "Q", "V28", "claim", "shown only if every run that was made is listed",
    ),
    Record(
        "gap in bits per byte called nats", lambda: claimed(seeds(), gap=0.004),
        "Q", "V29", "claim", "off by bytes per token x ln 2, as in PR #1557",
    ),
    Record(
        "one seed from another configuration", lambda: claimed(changed(configuration="other")),
        "Q", "V30", "claim", "runs that are not runs of one thing",
    ),
    Record(
        "a figure that is not in the log", lambda: claimed(seeds(), changed(bits_per_byte=1.0675, nats_per_token=None)),
        "Q", "V30", "claim", "the headline follows from what is stated, but not from the evidence",
    ),
)  # fmt: skip
