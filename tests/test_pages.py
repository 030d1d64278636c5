"""Every command in the README and the how-to pages runs: with its own words, made small, or at least parsed by its verb."""

import re
import shlex
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

SMALL = ["--train.budget", "2", "--train.budget-unit", "steps", "--score.max-tokens", "2000"]
"""Added to every command that trains, so that it takes seconds."""


def snippets(page: Path) -> list[str]:
    """Lines of the page's ``bash`` blocks, continued lines joined, comments and output left out."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


COMMANDS = [(page.relative_to(ROOT), line) for page in PAGES for line in snippets(page)]


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.M))


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=str)
def test_every_command_in_the_documents_is_real(page: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    from fairway.cli import main

    words = shlex.split(line)
    if words[0] == "make":
        assert set(words[1:]) <= makefile_targets()
    elif words[0] in ("git", "cd", "pip"):
        assert len(words) > 1
    else:
        start = words.index("fairway") + 1
        assert words[:start] in (["fairway"], ["python", "-m", "fairway"]) or words[0] == "torchrun", line
        verb = words[start:]
        # The verb's own parser must accept every flag: an unknown one is refused even when help is asked for last.
        named = [word for word in verb if not word.startswith("-")]
        code = main([*named[:1], *verb[1:], "--help"]) if verb[0] != "data" else main([*verb[:2], "--help"])
        assert code == 0, line
        shown = capsys.readouterr().out
        for flag in (word for word in verb if word.startswith("--")):
            assert flag in shown or flag == "--help", f"{line}: {flag} is not a flag of {verb[0]}"


@pytest.mark.slow
def test_the_readme_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ``fairway`` line as printed, in order, in an empty folder with notes in it; training is cut to two steps.

    What needs a network or eight GPUs (``data fetch``, ``torchrun``) is checked flag by flag above.
    """
    from fairway.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    library = Path(sysconfig.get_paths()["stdlib"])
    for module in sorted(library.glob("[a-f]*.py")):
        (tmp_path / "notes" / f"{module.stem}.txt").write_text(module.read_text())
    lines = [line for line in snippets(ROOT / "README.md") if line.startswith("fairway ") and " fetch " not in line]
    for line in lines:
        words = shlex.split(line)[1:]
        assert main([*words, *(SMALL if words[0] == "run" else [])]) == 0, line
    assert (tmp_path / "runs" / "notes" / "report.html").exists()
    assert len(lines) >= 8


def test_pages_name_files_that_exist() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} points to {link}"
