"""``fairway record``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from fairway.base.errors import BudgetError, FairwayError, ValidityError
from fairway.cli.parse import Switch, emit, parse

if TYPE_CHECKING:
    from fairway.record.hand_in import HandedIn


@dataclass(frozen=True, kw_only=True)
class RecordArguments:
    """Write the folder of a record, every figure from the runs' own files; refused with all reasons where it does not hold.

    The runs are seeds of one recipe, trained, packed, scored in strict mode and audited. They must beat the runs, or the
    record, that are named with --against.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Run folders, three seeds or more of one recipe."""
    against: tuple[Path, ...] = ()
    """What they should beat: run folders, the folder of another record, or a record's JSON file."""
    out: Path | None = None
    """Folder to write; needed."""
    name: str = ""
    """Title of the record; by default the recipe's name."""
    blurb: str = ""
    """One sentence about it; by default the recipe's summary."""
    author: str = ""
    """Who hands it in; needed, but for a draft."""
    github_id: str = ""
    """Account of the author; needed, but for a draft."""
    margin: float = 0.005
    """Improvement to show at p < 0.01, the README's rule; 0 asks for any improvement at p < 0.25, the leaderboard's."""
    unit: Literal["nats_per_token", "nats_per_byte", "bpb"] = "nats_per_token"
    """Unit of the margin."""
    draft: Switch = False
    """Write the folder whatever stands against it; its first lines list the reasons."""
    overwrite: Switch = False
    """Replace an earlier folder of a record."""
    json: Switch = False
    """Print one JSON document instead of sentences."""


def record(argv: Sequence[str]) -> int:
    """Hand in a record; 1 when it is refused, 2 when only mistakes keep it from being written."""
    arguments = parse(RecordArguments, argv, "record")
    if arguments.out is None or not arguments.runs:
        raise FairwayError("fairway record needs runs and a folder: fairway record RUN... --against RUN... --out DIR")
    from fairway.record.hand_in import hand_in
    from fairway.record.reasons import Refused
    from fairway.record.submission import About
    from fairway.record.units import Margin, Unit

    try:
        done = hand_in(
            arguments.runs,
            arguments.against,
            arguments.out,
            about=About(name=arguments.name, blurb=arguments.blurb, author=arguments.author, github_id=arguments.github_id),
            margin=Margin(arguments.margin, Unit(arguments.unit)),
            draft=arguments.draft,
            overwrite=arguments.overwrite,
        )
    except Refused as refused:
        for reason in refused.reasons:
            print(_line(reason), file=sys.stderr)
        count = len(refused.reasons)
        many = "1 reason" if count == 1 else f"{count} reasons"
        print(f"refused, nothing was written: {many} above; {refused.remedy}", file=sys.stderr)
        return 1 if any(isinstance(reason, BudgetError | ValidityError) for reason in refused.reasons) else 2
    emit(_document(done), _text(done), as_json=arguments.json)
    return 0


def _line(reason: FairwayError) -> str:
    return f"{type(reason).__name__}: {' '.join(str(reason).split())}"


def _document(done: "HandedIn") -> dict[str, Any]:
    return {
        "folder": str(done.folder),
        "files": sorted(path.name for path in done.folder.iterdir()),
        "draft": bool(done.document.get("draft", False)),
        "reasons": [_line(reason) for reason in done.reasons],
        "submission": dict(done.document),
    }


def _text(done: "HandedIn") -> str:
    document = done.document
    deviation = document["val_bpb_std"]
    lines = [
        f"{document['name']}: {document['val_bpb']:.8f} bpb, mean of {len(document['seeds'])} seeds"
        + (f", deviation {deviation:.8f} (ddof 1)" if deviation is not None else "")
        + f"; at most {document['bytes_total']:,} of {document['byte_cap']:,} bytes"
    ]
    if document["comparison"] and document["comparison"]["tests"]:
        test, gap = document["comparison"]["tests"][-1], document["comparison"]["gap"]
        lines.append(
            f"against {document['comparison']['reference']}: {gap['bpb']:+.6f} bpb, {gap['nats_per_token']:+.6f} nats per "
            f"token; {test['question']} {'yes' if test['accepted'] else 'no'}: {test['test']}'s t {test['t']:.3f}, "
            f"{test['df']:.2f} degrees, p {test['p']:.3g}"
        )
    if document["off_track_because"]:
        lines.append(f"outside the challenge's track: {'; '.join(document['off_track_because'])}")
    lines += [f"against it: {_line(reason)}" for reason in done.reasons]
    kind = "draft" if document.get("draft") else "record"
    return "\n".join([*lines, f"{kind} written: {done.folder}, {len(list(done.folder.iterdir()))} files"])
