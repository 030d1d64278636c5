"""``fairway bundle`` and ``fairway unbundle``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fairway.cli.parse import Switch, emit, named_recipe, parse, table
from fairway.config import Recipe


@dataclass(frozen=True, kw_only=True)
class BundleArguments:
    """Settings of the recipe, and where its one-file source goes."""

    out: Path = Path("train_gpt.py")
    """The file; its map is written beside it, as train_gpt.map.json."""
    check: Path | None = None
    """Write nothing; say whether this file is what the package makes of the recipe."""
    json: Switch = False
    """Print one JSON document instead of a table."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class CheckArguments:
    """Say whether a bundle is what this version of the package makes of the recipe in its map."""

    check: Path
    """The bundle."""
    json: Switch = False
    """Print one JSON document instead of a line."""


def bundle(argv: Sequence[str]) -> int:
    """Write the one-file source of a recipe, or check one; 1 when the file is not the package's."""
    if argv and argv[0].startswith("--check"):
        arguments = parse(CheckArguments, argv, "bundle")
        return _check(arguments.check, None, as_json=arguments.json)
    base, rest = named_recipe(argv, "bundle")
    given = parse(BundleArguments, rest, f"bundle {base.name}", BundleArguments(recipe=base))
    if given.check is not None:
        return _check(given.check, given.recipe, as_json=given.json)
    from fairway.base.files import write_bytes, write_json
    from fairway.bundle.make import make_bundle
    from fairway.bundle.restore import map_path

    made = make_bundle(given.recipe)
    write_bytes(given.out, made.content)
    write_json(map_path(given.out), made.names)
    document = {"bundle": str(given.out), "recipe": given.recipe.name, "bytes": len(made.content), "source": len(made.source)}
    emit(document, table(list(document.items()), ("what", "value")), as_json=given.json)
    return 0


def _check(path: Path, recipe: Recipe | None, *, as_json: bool) -> int:
    from fairway.bundle.restore import check

    found = check(path, recipe)
    verdict = "is" if found.same else "is not"
    lines = [f"{path} {verdict} what this version of fairway makes of {found.recipe}", *found.reasons]
    emit(found.to_dict(), "\n".join(lines), as_json=as_json)
    return 0 if found.same else 1


@dataclass(frozen=True, kw_only=True)
class UnbundleArguments:
    """Restore readable source from a bundle, without running anything of it."""

    file: Annotated[Path, tyro.conf.Positional]
    """The bundle; with its map beside it the package's own names and modules come back."""
    out: Path
    """Folder for the source; new or empty."""
    json: Switch = False
    """Print one JSON document instead of a list."""


def unbundle(argv: Sequence[str]) -> int:
    """Restore readable source."""
    arguments = parse(UnbundleArguments, argv, "unbundle")
    from fairway.bundle.restore import restore

    files = [str(path) for path in restore(arguments.file, arguments.out)]
    emit({"files": files}, "\n".join(files), as_json=arguments.json)
    return 0
