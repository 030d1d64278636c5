"""Readable source out of a bundle, without running it, and the answer to the question whether a bundle is the package."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fairway
from fairway.base.errors import ArtifactError, DataError
from fairway.base.files import read_json, write_text
from fairway.base.values import from_dict
from fairway.bundle.make import make_bundle
from fairway.bundle.map import FORMAT, VERSION, digest, module_digests
from fairway.bundle.pack import unpack
from fairway.config import Recipe

IMPORTS, BEGIN = "imports.py", "begin.py"


def map_path(bundle: Path) -> Path:
    """Where the map of a bundle lies: beside it, ``train_gpt.map.json`` for ``train_gpt.py``."""
    return bundle.with_name(f"{bundle.stem}.map.json")


def read_bundle(path: Path) -> bytes:
    """The bytes of a bundle.

    Raises:
        ArtifactError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"bundle {path} cannot be read: {error.strerror}; make one with fairway bundle RECIPE") from None


def read_map(path: Path, content: bytes) -> dict[str, Any] | None:
    """The map beside a bundle; None if there is none.

    Raises:
        DataError: it is no map, or that of another bundle.
    """
    place = map_path(path)
    if not place.exists():
        return None
    names = read_json(place)
    if not isinstance(names, dict) or names.get("format") != FORMAT or names.get("version") != VERSION:
        raise DataError(f"{place} is no map of version {VERSION}; delete it, or make the bundle again")
    if names.get("bundle_sha256") != digest(content):
        raise DataError(f"{place} is the map of another bundle than {path}; delete it, or copy the one that belongs to it")
    return names


def restore(path: Path, out: Path) -> list[Path]:
    """Write the readable source of a bundle into a folder: formatted, and one file per module where its map is at hand.

    The names are the package's own with the map, else the short ones of the bundle. Nothing of the bundle is executed.

    Returns:
        The files that were written.

    Raises:
        ArtifactError: the file is no bundle or is damaged.
        DataError: the map does not belong to it, or the folder holds files already.
    """
    content = read_bundle(path)
    tree = ast.parse(unpack(content))
    names = read_map(path, content)
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty; give a new folder for the source")
    files: dict[str, list[ast.stmt]] = {}
    for node in tree.body:
        files.setdefault(_home(node, names), []).append(node)
    written = []
    for name, body in files.items():
        nodes = [_Renamer(names).renamed(node) for node in body] if names else body
        written.append(out / name)
        write_text(written[-1], "\n\n".join(ast.unparse(node) for node in nodes) + "\n")
    for name, text in _c_sources(tree).items():
        written.append(out / name)
        write_text(written[-1], text.replace(";", ";\n").replace("{", "{\n").replace("}", "}\n"))
    return written


def _home(node: ast.stmt, names: dict[str, Any] | None) -> str:
    """File of a statement of the top level."""
    if names is None:
        return "train_gpt.py"
    if isinstance(node, ast.Import | ast.ImportFrom):
        return IMPORTS
    module = next((names["modules"][name] for name in _bound(node) if name in names["modules"]), "")
    return module.replace(".", "/") + ".py" if module else BEGIN


def _bound(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    return [part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)]


def _c_sources(tree: ast.Module) -> dict[str, str]:
    """C files among the constants of a program."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                both = isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
                if both and str(key.value).endswith((".c", ".h")) and "/" not in str(key.value):  # type: ignore[union-attr]
                    found[str(key.value)] = str(value.value)  # type: ignore[union-attr]
    return found


class _Renamer(ast.NodeTransformer):
    """Gives the names of a statement back what they were."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names, self.inside = names, dict[str, str]()

    def renamed(self, node: ast.stmt) -> ast.stmt:
        """A statement of the top level with the package's names."""
        self.inside = next((self.names["locals"][name] for name in _bound(node) if name in self.names["locals"]), {})
        return self.visit(node)

    def _name(self, name: str) -> str:
        return self.inside.get(name) or self.names["globals"].get(name) or self.names["members"].get(name, name)

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self._name(node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.arg = self._name(node.arg)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.Attribute:
        self.generic_visit(node)
        node.attr = self.names["members"].get(node.attr, node.attr)
        return node

    def visit_alias(self, node: ast.alias) -> ast.alias:
        if node.asname:
            node.asname = self._name(node.asname)
            node.asname = None if node.asname == node.name else node.asname
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.ExceptHandler:
        self.generic_visit(node)
        node.name = node.name and self._name(node.name)
        return node

    def _definition(self, node: Any) -> Any:
        self.generic_visit(node)
        node.name = self.names["members"].get(node.name) or self._name(node.name)
        return node

    visit_FunctionDef = visit_ClassDef = _definition

    def visit_Global(self, node: Any) -> Any:
        node.names = [self._name(name) for name in node.names]
        return node

    visit_Nonlocal = visit_Global


@dataclass(frozen=True)
class Check:
    """Whether a bundle is what this version of the package makes."""

    same: bool
    recipe: str
    bytes: int
    reasons: tuple[str, ...]
    """What speaks against it."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"same": self.same, "recipe": self.recipe, "bytes": self.bytes, "reasons": list(self.reasons)}


def check(path: Path, recipe: Recipe | None = None) -> Check:
    """Make the bundle again and compare it byte by byte.

    Args:
        path: The bundle.
        recipe: What it should be of; by default what its map says.

    Raises:
        ArtifactError: the file is no bundle or is damaged.
        DataError: neither a recipe nor a map is there.
    """
    content = read_bundle(path)
    unpack(content)
    names = read_map(path, content) if recipe is None else None
    if recipe is None and names is None:
        raise DataError(f"{path} has no map beside it; say what it should be: fairway bundle RECIPE --check {path}")
    wanted = recipe or from_dict(Recipe, (names or {})["recipe"])
    if make_bundle(wanted).content == content:
        return Check(True, wanted.name, len(content), ())
    reasons = [f"this package makes another file of {wanted.name}: {len(make_bundle(wanted).content):,} bytes"]
    if names is not None:
        if names["fairway"] != fairway.__version__:
            reasons.append(f"it was made by fairway {names['fairway']}, this is {fairway.__version__}")
        now = module_digests(list(names["sources"]))
        reasons += [f"{module} has changed since" for module, was in names["sources"].items() if now[module] != was]
    return Check(False, wanted.name, len(content), tuple(reasons))
