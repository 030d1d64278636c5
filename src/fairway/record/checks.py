"""The checks of test Q: each walks over what is stated and what is evidenced, and yields what does not agree.

A figure agrees when it is the recomputed one, rounded to the digits that it is printed with. Deviations are recomputed with
ddof 1; a stated one is never used. The breaches V21 to V30 are rows of the taxonomy of invalid submissions.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from fairway.record.figures import Claim, GapClaim, Number, SeedFigures
from fairway.record.statistics import Summary, welch_test
from fairway.record.units import TextSize, Unit, convert

RELATIVE_NOISE = 1e-9
"""Sums over a ledger agree to this, whatever the order of addition."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Caps of a record; infinity where there is none."""

    bytes: float = 16_000_000.0
    """Artifact and code, decimal bytes."""
    train_seconds: float = 600.0
    """Calibration included."""
    eval_seconds: float = 600.0
    seeds: int = 3
    """Runs that evidence normally needs."""
    files: tuple[str, ...] = ("README.md", "submission.json", "train_gpt.py")
    """Files of a submission's folder, checked where its listing is given."""


@dataclass(frozen=True)
class Discrepancy:
    """One thing that a claim states and its evidence does not show."""

    kind: str
    sentence: str
    claimed: Number | None = None
    found: Number | None = None
    breach: str = ""
    """Row of the taxonomy, where it has one."""


def agrees(stated: Number, recomputed: Number, *, digit: float | None = None, rounding: float = 0.0) -> bool:
    """Whether ``recomputed`` is printed as ``stated``; two whole numbers must be equal.

    Args:
        stated: As printed.
        recomputed: From the evidence.
        digit: One unit of the last printed digit, where ``stated`` is one of a column: 1.08 is 1.08000000 among others of
            eight decimals.
        rounding: By how much ``recomputed`` may be off itself, because what it comes from was rounded.
    """
    if isinstance(stated, int) and isinstance(recomputed, int):
        return stated == recomputed
    half = 0.5 * (last_digit([stated]) if digit is None else digit)
    return abs(stated - recomputed) <= max(half + rounding, RELATIVE_NOISE * abs(stated)) * (1 + 1e-6)


def last_digit(column: Sequence[Number]) -> float:
    """One unit of the last digit of the most precise number of a column, from its shortest printed form."""
    exponents = [Decimal(repr(float(value))).normalize().as_tuple().exponent for value in column]
    return 10.0 ** min(0, *(int(exponent) for exponent in exponents))


def seed_values(claim: Claim, evidence: Sequence[SeedFigures]) -> list[float]:
    """Bits per byte of each seed: as stated, or where no seed is stated, as measured."""
    rows = claim.seeds if any(seed.bits_per_byte is not None for seed in claim.seeds) else evidence
    return [float(row.bits_per_byte) for row in rows if row.bits_per_byte is not None]


def text_size(claim: Claim, evidence: Sequence[SeedFigures]) -> TextSize | None:
    """The text that was scored, as far as anything says."""
    sizes = [TextSize(row.tokens, row.bytes) for row in (*evidence, *claim.seeds) if row.tokens and row.bytes]
    return sizes[0] if sizes else None


def missing(
    claim: Claim, evidence: Sequence[SeedFigures], values: list[float], files: Collection[str] | None, limits: Limits
) -> Iterator[Discrepancy]:
    """What a claim needs and does not bring: a headline, values by seed, enough seeds, logs, files."""
    if claim.bits_per_byte is None:
        yield Discrepancy("no headline", f"{claim.name} states no val_bpb")
    if not any(seed.bits_per_byte is not None for seed in claim.seeds):
        yield Discrepancy("no values by seed", f"{claim.name} gives no bits per byte by seed, so its mean cannot be recomputed")
    if len(values) < limits.seeds:
        yield Discrepancy(
            "too few seeds", f"{len(values)} runs are evidenced, {limits.seeds} are needed", len(values), limits.seeds
        )
    logged = {row.seed for row in evidence}
    for seed in claim.seed_names if evidence else ():
        if seed not in logged:
            yield Discrepancy("no log", f"seed {seed} is claimed without a log", breach="V30")
    for name in limits.files if files is not None else ():
        if name not in (files or ()):
            yield Discrepancy("missing file", f"the submission's folder has no {name}")


def mean_and_spread(claim: Claim, values: list[float]) -> Iterator[Discrepancy]:
    """Headline and deviation against the seeds, in bits per byte and in nats per token."""
    nats = [float(seed.nats_per_token) for seed in claim.seeds if seed.nats_per_token is not None]
    stated = (
        (Unit.BPB, claim.bits_per_byte, claim.deviation_bpb, values),
        (Unit.NATS_PER_TOKEN, claim.nats_per_token, claim.deviation_nats, nats),
    )
    for unit, mean, deviation, sample in stated:
        if not sample:
            continue
        found, digit = Summary.of(sample, unit), last_digit(sample)
        if mean is not None and not agrees(mean, found.mean, rounding=0.5 * digit):
            sentence = f"the stated mean {mean} {unit.label} is not that of its {found.count} seeds, {found.mean:.8f}"
            yield Discrepancy("mean", sentence, mean, found.mean, "V30")
        if deviation is None or found.deviation is None or agrees(deviation, found.deviation, rounding=digit):
            continue
        population = agrees(deviation, found.deviation * math.sqrt((found.count - 1) / found.count), rounding=digit)
        kind = "population deviation" if population else "deviation"
        how = "divides by n; the sample deviation (ddof 1) is" if population else "is not that of its seeds,"
        sentence = f"the stated deviation {deviation} {unit.label} {how} {found.deviation:.8f}"
        yield Discrepancy(kind, sentence, deviation, found.deviation)


FIGURES = (
    "bits_per_byte", "nats_per_token", "tokens", "bytes", "model_bytes", "code_bytes", "total_bytes",
    "train_seconds", "eval_seconds", "steps",
)  # fmt: skip


def against_logs(claim: Claim, evidence: Sequence[SeedFigures]) -> Iterator[Discrepancy]:
    """Every stated figure of a seed against its log, and every figure stated once against all logs."""
    stated = {seed.seed: seed for seed in claim.seeds}
    columns = {name: _column(claim.seeds, name) for name in FIGURES}
    models = {row.model_bytes for row in evidence}
    for row in evidence:
        seed = stated.get(row.seed, SeedFigures(seed=row.seed))
        pairs = [(name, getattr(seed, name), getattr(row, name)) for name in FIGURES]
        pairs += [(name, {**claim.further, **seed.further}.get(name), value) for name, value in row.further.items()]
        if seed.steps is None:
            pairs += [("steps", claim.further.get("steps"), row.steps)]
        for name, said, logged in pairs:
            if said is None or logged is None or _same(said, logged, columns.get(name)):
                continue
            only_model = name == "total_bytes" and said in models
            kind = "model bytes only" if only_model else "differs from the log"
            why = ", which is the model of a seed without any code" if only_model else ""
            numbers = (said, logged) if isinstance(said, int | float) and isinstance(logged, int | float) else (None, None)
            sentence = f"seed {row.seed}: {name} is stated as {said}{why}, logged as {logged}"
            yield Discrepancy(kind, sentence, *numbers, "V27" if only_model else "V30")
    totals = [total for total in map(_total, evidence) if total is not None]
    if claim.total_bytes is not None and totals and claim.total_bytes != max(totals):
        sentence = f"the stated size {claim.total_bytes:,} is not the largest of the logs, {max(totals):,}"
        yield Discrepancy("differs from the log", sentence, claim.total_bytes, max(totals), "V27")


def _same(said: Number | str, logged: Number | str, column: list[Number] | None) -> bool:
    if isinstance(said, str) or isinstance(logged, str):
        return said == logged
    return agrees(said, logged, digit=last_digit(column) if column else None, rounding=0.5 * last_digit([logged]))


def _column(rows: Sequence[SeedFigures], name: str) -> list[Number]:
    """One figure of all seeds that state it."""
    return [value for row in rows if (value := getattr(row, name)) is not None]


def _total(row: SeedFigures) -> int | None:
    """Bytes against the cap, without uncounted helpers."""
    if row.total_bytes is not None:
        return row.total_bytes
    return None if row.model_bytes is None or row.code_bytes is None else row.model_bytes + row.code_bytes


def repeated(claim: Claim, evidence: Sequence[SeedFigures]) -> Iterator[Discrepancy]:
    """Values that two seeds share: a score that nothing but a copy repeats, or a size that no log confirms."""
    logged = {row.seed: row for row in evidence}
    for name in ("bits_per_byte", "nats_per_token", "model_bytes", "total_bytes"):
        counts = Counter(getattr(seed, name) for seed in claim.seeds if getattr(seed, name) is not None)
        for value, count in counts.items():
            seeds = [seed.seed for seed in claim.seeds if getattr(seed, name) == value]
            confirmed = all(seed in logged and getattr(logged[seed], name) == value for seed in seeds)
            if count > 1 and not (confirmed and name.endswith("_bytes")):
                yield Discrepancy("repeated value", f"seeds {', '.join(seeds)} state the same {name}, {value}", breach="V30")


def over_the_caps(claim: Claim, evidence: Sequence[SeedFigures], limits: Limits) -> Iterator[Discrepancy]:
    """Bytes and seconds over a cap, from the logs where there are any; files that count and were not counted."""
    for row in evidence or claim.seeds:
        total = _total(row)
        if total is not None and total + row.helper_bytes > limits.bytes:
            sentence = f"seed {row.seed}: {total + row.helper_bytes:,} bytes are over the cap of {limits.bytes:,.0f}"
            yield Discrepancy("over the byte cap", sentence, total + row.helper_bytes, int(limits.bytes), "V27")
        elif total is not None and row.helper_bytes:
            sentence = (
                f"seed {row.seed}: {row.helper_bytes:,} bytes of files that the run needs are not in its {total:,}; "
                f"with them {total + row.helper_bytes:,}"
            )
            yield Discrepancy("uncounted files", sentence, total, total + row.helper_bytes, "V27")
        for name, limit in (("train_seconds", limits.train_seconds), ("eval_seconds", limits.eval_seconds)):
            seconds = getattr(row, name)
            if seconds is not None and seconds > limit:
                sentence = f"seed {row.seed}: {name} {seconds:.1f} is over the cap of {limit:.1f}"
                yield Discrepancy("over the time cap", sentence, seconds, limit, "V26")
    if not evidence and not claim.seeds and claim.total_bytes is not None and claim.total_bytes > limits.bytes:
        sentence = f"{claim.total_bytes:,} bytes are over the cap of {limits.bytes:,.0f}"
        yield Discrepancy("over the byte cap", sentence, claim.total_bytes, int(limits.bytes), "V27")


def mixed_runs(rows: Sequence[SeedFigures]) -> Iterator[Discrepancy]:
    """Seeds that are not runs of one thing."""
    for name, what in (("configuration", "settings"), ("code", "code"), ("code_bytes", "code sizes")):
        known = {getattr(row, name) for row in rows} - {None}
        if len(known) > 1:
            shown = f": {', '.join(f'{value:,}' for value in sorted(known))}" if name == "code_bytes" else ""
            yield Discrepancy(f"mixed {what}", f"the seeds were run with {len(known)} different {what}{shown}", breach="V30")


def one_text(claim: Claim, evidence: Sequence[SeedFigures], export: TextSize | None) -> Iterator[Discrepancy]:
    """One text for all seeds: ``bytes / tokens = nats per token / (ln 2 * bpb)``, as far as the printed digits tell."""
    rows = [*evidence, *claim.seeds]
    sizes = {TextSize(row.tokens, row.bytes) for row in rows if row.tokens and row.bytes}
    if len(sizes) > 1:
        listed = " and ".join(sorted(map(str, sizes)))
        yield Discrepancy("different texts", f"the seeds scored different texts: {listed}", breach="V21")
    for size in sorted(sizes, key=str):
        if export is not None and size != export:
            yield Discrepancy("other export", f"{size} were scored, the official text has {export}", size.bytes, export.bytes)
    ratios = [ratio for group in (evidence, claim.seeds) for ratio in _ratios(group)]
    expected = next((size.bytes / size.tokens for size in sizes), ratios[0][1] if ratios else math.nan)
    for seed, ratio, slack in ratios:
        if abs(ratio / expected - 1) > slack + (0.0 if sizes else ratios[0][2]):
            sentence = f"seed {seed}: its loss and bits per byte imply {ratio:.6f} bytes per token, not {expected:.6f}"
            yield Discrepancy("bytes per token", sentence, ratio, expected)


def _ratios(rows: Sequence[SeedFigures]) -> list[tuple[str, float, float]]:
    """Seed, the bytes per token that its loss and bits per byte imply, and the relative rounding of that."""
    pairs = [(row.seed, row.nats_per_token, row.bits_per_byte) for row in rows]
    units = {name: last_digit(_column(rows, name) or [1]) for name in ("nats_per_token", "bits_per_byte")}
    return [
        (seed, nats / math.log(2.0) / bits, units["nats_per_token"] / nats + units["bits_per_byte"] / bits + 2 * RELATIVE_NOISE)
        for seed, nats, bits in pairs
        if nats and bits
    ]


def selected_seeds(values: list[float], every_run: Sequence[Number]) -> Iterator[Discrepancy]:
    """Reported runs against all that were made; ``k`` lowest of ``n`` happen by chance once in ``n choose k``."""
    reported, made = len(values), len(every_run)
    if not reported or made <= reported:
        return
    everything = sorted(map(float, every_run))
    mean, over_all = math.fsum(values) / reported, math.fsum(everything) / made
    lowest = all(abs(a - b) <= 1e-9 for a, b in zip(sorted(values), everything, strict=False))
    kind = "lowest seeds" if lowest else "unreported runs"
    chance = f", by chance once in {math.comb(made, reported)}" if lowest else ""
    which = f"the {reported} lowest" if lowest else f"{reported}"
    sentence = f"{which} of {made} runs are reported{chance}: mean {mean:.5f}, over all runs {over_all:.5f}"
    yield Discrepancy(kind, sentence, mean, over_all, "V28")


def stated_gap(gap: GapClaim, values: list[float], text: TextSize | None) -> Iterator[Discrepancy]:
    """A stated improvement in its stated unit, and its p-value."""
    if not values:
        return
    new = Summary.of(values, Unit.BPB, text)
    reference = gap.reference.in_unit(Unit.BPB)
    shared = text is not None and text == reference.text
    units = [unit for unit in Unit if shared or unit is not Unit.NATS_PER_TOKEN]
    gaps = {unit: convert(reference.mean - new.mean, Unit.BPB, unit, text) for unit in units}
    if gap.unit not in gaps:
        sentence = f"a gap of {gap.gap} {gap.unit.label} is stated between different or unknown texts, where it has no meaning"
        yield Discrepancy("unit", sentence, breach="V29")
    elif not _follows(gap.gap, gaps[gap.unit]):
        other = next((unit for unit in units if _follows(gap.gap, gaps[unit])), None)
        named = f"the gap stated as {gap.gap} {gap.unit.label} is {gaps[gap.unit]:.6f} {gap.unit.label}"
        sentence = f"{named}; {gap.gap} are {other.label}" if other else named
        yield Discrepancy("unit" if other else "gap", sentence, gap.gap, gaps[gap.unit], "V29" if other else "V30")
    if gap.p is not None and new.count > 1 and reference.count > 1:
        p = welch_test(new, reference).p
        if not _follows(gap.p, p):
            yield Discrepancy("p-value", f"the stated p = {gap.p} is {p:.4f} from sample deviations (ddof 1)", gap.p, p)


def _follows(stated: Number, recomputed: Number) -> bool:
    """``agrees`` for figures that follow from rounded means and deviations: one unit of the last digit, not half."""
    return agrees(stated, recomputed, rounding=0.5 * last_digit([stated]))
