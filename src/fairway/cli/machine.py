"""``fairway doctor``."""

from collections.abc import Sequence
from dataclasses import dataclass

from fairway.cli.parse import Switch, emit, parse, table


@dataclass(frozen=True, kw_only=True)
class DoctorArguments:
    """Show what is installed, what a run would use and why, and the remedy for whatever is missing."""

    json: Switch = False
    """Print one JSON document instead of a table."""


def doctor(argv: Sequence[str]) -> int:
    """Examine the machine; 1 when something that every run needs is missing."""
    arguments = parse(DoctorArguments, argv, "doctor")
    from fairway.doctor import examine, findings_to_dict

    findings = examine()
    document = findings_to_dict(findings)
    rows = [(item.state, item.subject, item.found, item.remedy) for item in findings]
    emit(document, table(rows, ("state", "subject", "found", "remedy")), as_json=arguments.json)
    return 0 if document["ready"] else 1
