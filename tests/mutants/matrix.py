"""The detection matrix: every test of the audit on every mutant and every valid scorer, as a block of docs/validity.md.

``python -m mutants.matrix`` prints the block, ``--write FILE`` puts it between the markers in FILE. Nothing in it depends on
time or chance, so that a test can compare the page with a fresh run.
"""

import argparse
import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fairway.audit.finding import Finding
from fairway.audit.run import CATALOGUE, AuditTest, Subject
from fairway.audit.runner import ADAPTED, FLOAT32, Tolerances
from fairway.audit.scorer import Scorer
from fairway.audit.streams import Streams, generate
from fairway.audit.witness import kraft_sum
from fairway.base.files import write_bytes
from mutants.base import VOCAB
from mutants.breaches import MUTANTS, Mutant, PaidPrefix
from mutants.ours import ours, streams
from mutants.provenance import PROVENANCE
from mutants.records import HONEST, RECORDS
from mutants.valid import VALID
from mutants.worked import KRAFT, LENGTHS, WORKED

BEGIN, END = "<!-- detection matrix -->", "<!-- end of detection matrix -->"
LETTERS = "XENFGPUOHSKD"


@dataclass(frozen=True)
class Setting:
    """On what a scorer is examined, and how thoroughly."""

    streams: Callable[[], Streams]
    thorough: bool
    tolerances: Tolerances


TOYS = Setting(functools.partial(generate, VOCAB), thorough=True, tolerances=FLOAT32)
NETWORKS = Setting(streams, thorough=False, tolerances=ADAPTED)
"""A network costs a thousand times a toy, so its tests get the fewest probes that can decide."""


def examine(make: Callable[[], Scorer], setting: Setting = TOYS) -> dict[str, Finding]:
    """Letter -> finding of every test of the catalogue, each on a scorer of its own."""
    return {test.letter: _run(test, make(), setting) for test in CATALOGUE}


def _run(test: AuditTest, scorer: Scorer, setting: Setting) -> Finding:
    if not test.applies(scorer):
        return test.sheet.not_applicable("the scorer lacks what this test examines")
    subject = Subject(scorer, setting.streams(), tolerances=setting.tolerances)
    return test.run(subject, test.probes[setting.thorough])


@functools.cache
def mutant_findings(mutant: Mutant) -> dict[str, Finding]:
    """What the audit says about a mutant."""
    return examine(mutant.make)


@functools.cache
def valid_findings(make: Callable[[], Scorer], networks: bool) -> dict[str, Finding]:
    """What the audit says about a valid scorer."""
    return examine(make, NETWORKS if networks else TOYS)


def cell(finding: Finding) -> str:
    """``.`` where nothing was found, else the verdict with its statistic."""
    if finding.verdict == "fail":
        size = finding.statistic
        return f"fail {size:,.0f}" if abs(size) >= 100 else f"fail {size:.3g}"
    return {"pass": ".", "not applicable": "n.a.", "undecided": "?"}[finding.verdict]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; a vertical bar in a cell is written as its entity."""
    cells = [[text.replace("|", "&#124;") for text in row] for row in (head, ["---"] * len(head), *rows)]
    return [f"| {' | '.join(row)} |" for row in cells]


def _matrix() -> list[str]:
    def row(breach: str, name: str, findings: dict[str, Finding]) -> list[str]:
        return [breach or "-", name, *(cell(findings[letter]) for letter in LETTERS)]

    rows = [row(mutant.breach, mutant.build.title, mutant_findings(mutant)) for mutant in MUTANTS]
    rows += [row("V22-V24", PaidPrefix.title, valid_findings(PaidPrefix, False))]
    rows += [row("valid", kind.title, valid_findings(kind, False)) for kind in VALID]
    rows += [row("valid", f"ours: {make().name}", valid_findings(make, True)) for make in ours()]
    return table(["breach", "scorer", *LETTERS], rows)


def _reasons() -> list[str]:
    rows = []
    for mutant in MUTANTS:
        says = mutant_findings(mutant)[mutant.caught_by[0]]
        what = " ".join((inspect.getdoc(mutant.build) or "").replace("``", "`").split())
        must = " ".join(mutant.caught_by)
        rows.append([mutant.breach or "-", mutant.build.title, what, mutant.condition, must, f"{says.test}: {says.reason}"])
    return table(["breach", "scorer", "what it does", "condition it breaks", "must fail", "what the first says"], rows)


def _letters() -> list[str]:
    sheets = {test.letter: test.sheet for test in CATALOGUE}
    rows = [[letter, sheets[letter].name, sheets[letter].measures, sheets[letter].blind_to] for letter in LETTERS]
    return table(["letter", "test", "statistic", "cannot see"], rows)


def _records() -> list[str]:
    rows = []
    for record in (*RECORDS, *HONEST):
        finding = record.check()
        said = f"{finding.test} {finding.verdict}: {finding.reason}"
        rows.append([record.breach or "honest", record.title, record.says, said])
    return table(["breach", "record", "what is wrong", "what the test says"], rows)


def _worked() -> list[str]:
    rows = []
    for name, kind, published in KRAFT:
        small = kind().miniature(2)
        sums = (kraft_sum(small, 2, targets, starts, {}) for targets, starts in LENGTHS)
        rows.append([name, " / ".join(f"{total:.4g}" for total in sums), published])
    rows += [[title, f"{1 + make_sum():.6g}", f"{expected:.6g}"] for title, make_sum, expected in WORKED]
    return table(["scorer", "here", "rules"], rows)


def block() -> str:
    """Everything between the markers."""
    torch.set_num_threads(1)
    parts = [
        "Written by `make matrix` from `tests/mutants`: invalid scorers that differ from a valid one in their breach alone, "
        "and the valid ones beside them. The breaches V1 to V30 are the rows of the taxonomy of invalid submissions; `-` is a "
        "breach outside of it. A cell is `.` where the test passes, `n.a.` where it has nothing to examine, or `fail` with its "
        "statistic.",
        "### Scorers",
        *_matrix(),
        "### What the tests measure",
        *_letters(),
        "### Why each mutant is invalid, and what says so",
        *_reasons(),
        "### Bytes, files, clocks and claims",
        *_records(),
        "### What no test of a scorer can see",
        *table(["breach", "what it is", "what covers it"], PROVENANCE),
        "### Values of the rules' own toys",
        "Sums over all streams of two symbols in documents of 3 + 5, 2 + 6 and 2 + 3 + 4 targets: 1 for a code, above 1 proves "
        "that no decoder exists. The rules do not give their toys in full, so these agree in kind and in rough size. The sums "
        "over one target's substitutions are given in full and agree to the last digit.",
        *_worked(),
    ]
    lines: list[str] = []
    for part in parts:
        if lines and not (part.startswith("|") and lines[-1].startswith("|")):
            lines.append("")
        lines.append(part)
    return "\n".join(lines)


def placed(page: str) -> str:
    """The page with a fresh block between its markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{block()}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description="The detection matrix of the audit.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="page whose block is replaced; without it, print")
    page = parser.parse_args().write
    if page is None:
        print(block())
    else:
        write_bytes(page, placed(page.read_text("utf-8")).encode("utf-8"))


if __name__ == "__main__":
    main()
