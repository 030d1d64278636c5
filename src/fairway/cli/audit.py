"""``fairway audit``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from fairway.base.errors import FairwayError
from fairway.base.runs import RunFolder
from fairway.cli.parse import Switch, emit, parse, table
from fairway.config import MachineConfig, PassName

if TYPE_CHECKING:
    from fairway.audit.finding import Finding
    from fairway.audit.scorer import Scorer
    from fairway.audit.subjects import ArtifactAudit


@dataclass(frozen=True, kw_only=True)
class AuditArguments:
    """Test whether a score is valid: of an artifact or a run folder, of a Python function, or of a command."""

    artifact: Annotated[Path | None, tyro.conf.Positional] = None
    """Artifact or run folder; leave it out to audit a function or a command."""
    data: Path | None = None
    """Folder with validation text; for a run folder, by default the one that it was trained on."""
    pass_name: Annotated[PassName | None, tyro.conf.arg(name="pass")] = None
    """Pass of the artifact to audit; by default the one that gives its result."""
    scorer: str = ""
    """Python function module:function, called with tokens and a dictionary; it returns nats per target."""
    hook: str = ""
    """Python function module:function that returns log-probabilities at given entries, [entries, vocab]."""
    command: str = ""
    """Program to run for every stream, such as "prog {tokens} {meta} {out}"."""
    vocab: int = 0
    """Number of token ids of a function or a command; by default that of --data."""
    declares: str = ""
    """Side information that a function or a command may use: targets, documents, or both with a comma between."""
    independent_documents: Switch = False
    """The function or command claims to score every document as if no other existed."""
    budget_seconds: float = 150.0
    """Time that the tests may take; those that do not fit are undecided."""
    seed: int = 0
    """Seed of streams and probes."""
    out: Path | None = None
    """Where to write the findings; by default audit.json in the run folder, or none."""
    json: Switch = False
    """Print one JSON document instead of the tables."""
    machine: MachineConfig = field(default_factory=MachineConfig)


def audit(argv: Sequence[str]) -> int:
    """Audit a scorer; 1 when a test fails."""
    arguments = parse(AuditArguments, argv, "audit")
    given = [name for name in ("artifact", "scorer", "command") if getattr(arguments, name)]
    if len(given) != 1:
        raise FairwayError(
            "fairway audit needs exactly one of an artifact, --scorer module:function and --command, "
            f"not {' and '.join(given) or 'none'}"
        )
    if arguments.hook and not arguments.scorer:
        raise FairwayError("--hook goes with --scorer; artifacts have their own and commands have none")
    done = _artifact(arguments) if arguments.artifact else _foreign(arguments)
    from fairway.audit.run import audit_document, failed, write_audit
    from fairway.report.page import refresh_report

    document = audit_document(done.name, done.findings, seed=arguments.seed, budget_seconds=arguments.budget_seconds)
    if done.out is not None:
        write_audit(done.out, document)
        if done.out == RunFolder(done.out.parent).audit:
            refresh_report(done.out.parent)
    emit(document, _text(done, document["verdict"]), as_json=arguments.json)
    return 1 if failed(done.findings) else 0


@dataclass(frozen=True)
class _Audited:
    """What was audited, and what came of it."""

    name: str
    findings: "list[Finding]"
    out: Path | None
    """Where the findings are written."""
    unclaimable: str = ""
    """What keeps the run's score from counting whatever the tests say."""


def _progress(finding: "Finding") -> None:
    from fairway.base.log import logger

    logger.info(f"{finding.test} {finding.name}: {finding.verdict}, {finding.runs} runs, {finding.seconds:.1f} s")


def _artifact(arguments: AuditArguments) -> _Audited:
    if arguments.vocab or arguments.declares or arguments.independent_documents:
        raise FairwayError(
            "--vocab, --declares and --independent-documents describe a function or a command; an artifact says these itself"
        )
    assert arguments.artifact is not None
    from fairway.audit.subjects import ArtifactAudit, open_run
    from fairway.base.files import read_json
    from fairway.config import stated_settings
    from fairway.data.dataset import Dataset
    from fairway.record.claim import nothing_stated, run_claim
    from fairway.score.compress import checked_pass
    from fairway.score.load import load_packed
    from fairway.train.machine import choose

    path, run = open_run(arguments.artifact)
    packed = load_packed(path)
    data = run.data_folder(arguments.data) if run and run.environment.exists() else arguments.data
    stated = read_json(run.score) if run else None
    settings = stated_settings(stated, packed.score)
    subject = ArtifactAudit(
        packed,
        choose(arguments.machine),
        checked_pass(arguments.pass_name or settings.passes[-1], packed, "be audited"),
        settings,
        Dataset.open(data) if data else None,
        run,
        stated,
    )
    claim = run_claim(run, int(packed.header["byte_cap"])) if run else nothing_stated()
    _progress(claim)
    findings = [claim, *subject.audit(arguments.budget_seconds, arguments.seed, _progress)]
    out = arguments.out or (run.audit if run else None)
    return _Audited(f"{path} {subject.pass_name}", findings, out, _unclaimable(subject))


def _unclaimable(subject: "ArtifactAudit") -> str:
    """Why the audited pass of the run cannot be claimed in the mode that the run was scored in; empty where it can."""
    if subject.stated is None:
        return ""
    from fairway.report.claimable import why_not_claimable

    return why_not_claimable(subject.stated["mode"], subject.pass_name, subject.stated["tokens"], subject.settings)


def _foreign(arguments: AuditArguments) -> _Audited:
    if arguments.pass_name:
        raise FairwayError("--pass names a pass of an artifact; a function or a command has none")
    import numpy as np

    from fairway.audit.run import run_audit
    from fairway.audit.streams import Streams, generate, shared_documents
    from fairway.record.claim import nothing_stated

    vocab, text = arguments.vocab, None
    if arguments.data is not None:
        from fairway.data.dataset import Dataset

        dataset = Dataset.open(arguments.data)
        vocab, text = vocab or dataset.vocab_size, dataset.validation().tokens[:20_000].astype(np.int64)
    if vocab < 2:
        raise FairwayError("--vocab N is needed, the number of token ids of the scorer, at least 2")
    scorer = _foreign_scorer(arguments, vocab)
    streams = generate(vocab, arguments.seed)
    if text is not None:
        streams = Streams(shared_documents(vocab, 300, arguments.seed, text=text), streams.sources)
    findings = run_audit(scorer, streams, arguments.budget_seconds, seed=arguments.seed, progress=_progress)
    return _Audited(scorer.name, [nothing_stated(), *findings], arguments.out)


def _foreign_scorer(arguments: AuditArguments, vocab: int) -> "Scorer":
    from fairway.audit.foreign import CommandScorer, callable_scorer, declared

    if arguments.scorer:
        return callable_scorer(
            arguments.scorer,
            vocab,
            hook=arguments.hook,
            declares=arguments.declares,
            independent=arguments.independent_documents,
        )
    return CommandScorer(arguments.command, vocab, declared(arguments.declares), arguments.independent_documents)


def _text(done: _Audited, verdict: str) -> str:
    """One row per validity condition, one per test, and the meaning and evidence of every failure."""
    from fairway.audit.run import judge
    from fairway.report.records import speaking

    conditions = [(item.condition, item.verdict, speaking(item.tests)) for item in judge(done.findings)]
    rows = [
        (item.test, item.name, item.verdict, _number(item.statistic), _number(item.tolerance), item.runs, f"{item.seconds:.1f}")
        for item in done.findings
    ]
    text = [
        table(rows, ("test", "name", "verdict", "statistic", "tolerance", "runs", "seconds")),
        "",
        table(conditions, ("condition", "verdict", "tests that speak for it")),
    ]
    for item in done.findings:
        if item.verdict in ("fail", "undecided"):
            text += ["", f"{item.test} {item.verdict}: {item.reason}"]
        if item.verdict == "fail":
            text += [f"  {item.meaning}"]
        if item.witness is not None:
            text += [f"  witness: {item.witness.how}: {item.witness.expected:.9g} and {item.witness.found:.9g}"]
            text += _shown(item.witness.tokens)
    if done.unclaimable:
        text += ["", f"this score cannot be claimed: {done.unclaimable}"]
    where = f"; evidence in {done.out}" if done.out else ""
    return "\n".join([*text, "", f"{done.name}: {verdict}{where}"])


def _number(value: float) -> str:
    return f"{value:.4g}"


def _shown(content: dict[str, Any]) -> list[str]:
    """The stream of a witness, where it is short, and what was substituted in it."""
    lines = []
    first = content.get("first")
    if isinstance(first, dict) and len(first["tokens"]) <= 64:
        lines.append(f"  stream: {first['tokens']}")
    if content.get("substituted"):
        lines.append(f"  substituted: {content['substituted']}")
    return lines
