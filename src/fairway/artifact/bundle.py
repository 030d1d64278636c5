"""The code of a run as one compressed archive, so that its size can be counted honestly.

The archive of a run holds every module that training, packing and scoring import, directly or not, whether the recipe uses
it or not, and the native sources beside them. Left out is what only looks at a result: audit, report, records, commands.
Names are sorted and nothing depends on clocks, owners or the machine, so equal sources give equal bytes.

    8 bytes magic "FWBUNDLE", 1 byte version, 1 byte method (0 LZMA2, 1 brotli), 4 bytes size of the archive, then it:
    per file: name length, name (UTF-8, "/" between folders), size, content; numbers as LEB128
"""

import ast
import lzma
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath

import fairway
from fairway.artifact.wire import Cursor, brotli_pack, brotli_unpack, damaged, varint
from fairway.base.errors import ArtifactError
from fairway.base.files import write_bytes

MAGIC = b"FWBUNDLE"
VERSION = 1
LZMA, BROTLI = 0, 1
MAX_ARCHIVE_BYTES = 1 << 26
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 24, "lc": 4, "lp": 0, "pb": 0}]
RUN_MODULES = ("fairway.walk", "fairway.stages")
"""Modules from which a whole run can be made."""
SKIPPED_SUFFIXES = {".pyc", ".pyo", ".so", ".pyd", ".dll", ".dylib"}


def package_files(root: Path | None = None) -> dict[str, bytes]:
    """Name and content of every source file of the package, sorted by name.

    Args:
        root: Folder of the package; by default that of the running one. Names start with its own name.

    Raises:
        ArtifactError: the folder holds no Python file.
    """
    root = root or Path(fairway.__file__).parent
    files = {}
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        hidden = any(piece.startswith(".") or piece == "__pycache__" for piece in relative.parts)
        if path.is_file() and not hidden and path.suffix not in SKIPPED_SUFFIXES:
            files[(PurePosixPath(root.name) / relative.as_posix()).as_posix()] = path.read_bytes()
    if not any(name.endswith(".py") for name in files):
        raise ArtifactError(f"{root} holds no Python file; give the folder of the package")
    return dict(sorted(files.items()))


def run_files(root: Path | None = None) -> dict[str, bytes]:
    """Those of `package_files` that a run needs: `RUN_MODULES`, what they import at any place, and the native sources.

    Args:
        root: Folder of the package; by default that of the running one.
    """
    files = package_files(root)
    modules = {_module_name(name): name for name in files if name.endswith(".py")}
    needed: set[str] = set()
    waiting = [*RUN_MODULES]
    while waiting:
        module = waiting.pop()
        if module in modules and module not in needed:
            needed.add(module)
            waiting += [module.rpartition(".")[0], *_imports(files[modules[module]])]
    kept = {modules[module] for module in needed}
    folders = {PurePosixPath(name).parent for name in kept}
    return {
        name: content
        for name, content in files.items()
        if name in kept or (not name.endswith(".py") and PurePosixPath(name).parent in folders)
    }


def _module_name(name: str) -> str:
    """``a/b/c.py`` as ``a.b.c``, and ``a/b/__init__.py`` as ``a.b``."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imports(source: bytes) -> Iterator[str]:
    """Every name that may be a module among the absolute imports of a source, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def bundle(files: Mapping[str, bytes] | None = None) -> bytes:
    """The archive of ``files`` (by default those of a run), compressed with LZMA2 or brotli, whichever is smaller.

    Raises:
        ArtifactError: a name that ``unbundle`` would refuse, or more than 64 MiB.
    """
    files = run_files() if files is None else files
    archive = bytearray()
    for name, content in sorted(files.items()):
        encoded = _checked_name(name).encode("utf-8")
        archive += varint(len(encoded)) + encoded + varint(len(content)) + content
    if len(archive) > MAX_ARCHIVE_BYTES:
        raise ArtifactError(f"the sources have {len(archive)} bytes, above {MAX_ARCHIVE_BYTES}; keep data out of the package")
    method, packed = _compress(bytes(archive))
    return MAGIC + bytes([VERSION, method]) + len(archive).to_bytes(4, "little") + packed


# Several runs of one process pack the same source, and brotli takes seconds.
@lru_cache(maxsize=1)
def _compress(archive: bytes) -> tuple[int, bytes]:
    """The better method for an archive, and what it makes of it."""
    packed = {
        LZMA: lzma.compress(archive, format=lzma.FORMAT_RAW, filters=FILTERS),
        BROTLI: brotli_pack(archive),
    }
    return min(packed.items(), key=lambda item: len(item[1]))


def write_bundle(path: Path) -> int:
    """Write the bundle of what a run needs of the running package, as ``code.bundle`` of a run, and return its size in bytes.

    Raises:
        MachineError: the disk is full or the folder cannot be written.
    """
    content = bundle()
    write_bytes(Path(path), content)
    return len(content)


def unpack_bundle(content: bytes) -> dict[str, bytes]:
    """Name and content of the files of a bundle; nothing is written or run.

    Raises:
        ArtifactError: the bundle is damaged, or a name would leave its folder.
    """
    if content[: len(MAGIC)] != MAGIC:
        raise ArtifactError("this is not a code bundle: it does not begin with FWBUNDLE; give the code.bundle of a run")
    cursor = Cursor(content[len(MAGIC) :], "code bundle")
    version, method, size = cursor.byte(), cursor.byte(), int.from_bytes(cursor.take(4), "little")
    if version != VERSION or method not in (LZMA, BROTLI):
        raise ArtifactError(f"code bundle of version {version}, method {method}, is unknown to this release; update fairway")
    if size > MAX_ARCHIVE_BYTES:
        raise damaged(f"the code bundle declares {size} bytes, above {MAX_ARCHIVE_BYTES}")
    archive = Cursor(_decompress(method, cursor.rest(), size), "code bundle")
    files = {}
    while not archive.done():
        try:
            name = _checked_name(archive.take(archive.varint()).decode("utf-8"))
        except UnicodeDecodeError:
            raise damaged("a file name of the code bundle is not UTF-8") from None
        if name in files:
            raise damaged(f"the code bundle holds {name} twice")
        files[name] = archive.take(archive.varint())
    return files


def unbundle(content: bytes, folder: Path) -> list[Path]:
    """Restore the files of a bundle under ``folder``, byte for byte, and return their paths.

    Raises:
        ArtifactError: the bundle is damaged; nothing is written then.
        MachineError: the disk is full or the folder cannot be written.
    """
    paths = []
    for name, data in unpack_bundle(content).items():
        paths.append(Path(folder) / name)
        write_bytes(paths[-1], data)
    return paths


def _decompress(method: int, data: bytes, size: int) -> bytes:
    if method == BROTLI:
        return brotli_unpack(data, size, "code bundle")
    decoder = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=FILTERS)
    try:
        archive = decoder.decompress(data, max_length=size + 1)
    except lzma.LZMAError:
        raise damaged("the code bundle is not a valid LZMA2 stream") from None
    if len(archive) != size or not decoder.eof or decoder.unused_data:
        raise damaged(f"the code bundle does not decompress to the {size} bytes it declares")
    return archive


def _checked_name(name: str) -> str:
    pieces = name.split("/")
    unsafe = any(piece in ("", ".", "..") or ":" in piece or "\\" in piece for piece in pieces)
    if unsafe or not name.isprintable() or len(name.encode("utf-8", "replace")) > 1024:
        raise damaged(f"file name {name[:80]!r} of the code bundle would leave its folder")
    return name
