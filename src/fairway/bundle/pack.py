"""The one file: compressed source in a Python text that runs it, and the source back out of it without running anything.

    #coding:l1
    import brotli                                    or lzma, whichever gives the smaller file
    exec(brotli.decompress('''...'''.encode('l1')))

The bytes stand in the text as characters U+0000 to U+00FF of Latin-1, so that one byte of code takes one byte of file. Four
need a backslash: NUL, which no source may hold; CR, which Python reads as LF; the quote where it would end the text; and the
backslash itself.
"""

import ast
import lzma

import brotli

from fairway.base.errors import ArtifactError

MOST_SOURCE_BYTES = 1 << 24
LINECACHE = "fw"
"""File name of the running source: tracebacks and Triton find its lines under it."""
FILTERS = [
    {"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20, "lc": lc, "lp": 0, "pb": pb, "nice_len": 273, "mode": lzma.MODE_NORMAL,
     "mf": lzma.MF_BT4, "depth": 1000}
    for lc in (0, 1, 2, 3, 4) for pb in (0, 1)
]  # fmt: skip


def quoted(content: bytes) -> bytes:
    """A string literal in Latin-1 whose characters are the bytes of ``content``."""
    text = content.replace(b"\\", b"\\\\").replace(b"\r", b"\\r").replace(b"'''", b"''\\'")
    pieces = text.split(b"\0")
    joined = pieces[0]
    for piece in pieces[1:]:
        joined += (b"\\000" if piece[:1].isdigit() else b"\\0") + piece
    if joined.endswith(b"'"):
        joined = joined[:-1] + b"\\'"
    return b"'''" + joined + b"'''"


def pack(source: str) -> bytes:
    """The file that runs ``source``; the smaller of brotli and LZMA2, the same for the same source."""
    content = source.encode()
    made = [_with_brotli(content), *(_with_lzma(content, choice) for choice in FILTERS)]
    return min(made, key=len)


def _with_brotli(content: bytes) -> bytes:
    packed = min((brotli.compress(content, mode=mode, quality=11, lgwin=24) for mode in (0, 1)), key=len)
    return _file(b"import linecache as l,brotli", b"brotli.decompress(%s)", packed)


def _with_lzma(content: bytes, choice: dict[str, int]) -> bytes:
    packed = lzma.compress(content, format=lzma.FORMAT_RAW, filters=[choice])
    call = b"lzma.decompress(%%s,3,None,[{'id':33,'dict_size':1<<20,'lc':%d,'pb':%d}])" % (choice["lc"], choice["pb"])
    return _file(b"import linecache as l,lzma", call, packed)


def _file(imports: bytes, call: bytes, packed: bytes) -> bytes:
    text = call % (quoted(packed) + b".encode('l1')")
    name = f"'{LINECACHE}'".encode()
    return (
        b"#coding:l1\n" + imports + b"\ns=" + text + b".decode();l.cache[" + name + b"]=len(s),None,s.splitlines(1)," + name
        + b"\nexec(compile(s," + name + b",'exec'))\n"
    )  # fmt: skip


def unpack(content: bytes) -> str:
    """The source in a bundle, as it runs; read from the syntax tree, nothing is executed.

    Raises:
        ArtifactError: this is no bundle, or it is damaged.
    """
    wrong = "this is no bundle of fairway: {}; give the train_gpt.py that fairway bundle wrote"
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ArtifactError(wrong.format(f"it is no Python source ({type(error).__name__})")) from None
    strings = [
        node for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "decompress" and node.args
    ]  # fmt: skip
    if len(strings) != 1 or len(tree.body) != 4:
        raise ArtifactError(wrong.format("it does not unpack itself"))
    (call,) = strings
    method = getattr(getattr(call.func, "value", None), "id", "")
    encoded = call.args[0]
    text = getattr(getattr(getattr(encoded, "func", None), "value", None), "value", None)
    if method not in ("brotli", "lzma") or not isinstance(text, str):
        raise ArtifactError(wrong.format("it does not unpack itself"))
    try:
        packed = text.encode("latin-1")
        source = _decompress(method, packed, call)
    except (brotli.error, lzma.LZMAError, ValueError, UnicodeError, EOFError) as error:
        raise ArtifactError(
            f"the bundle is damaged ({error or type(error).__name__}); make it again or copy it again"
        ) from None
    if pack_like(content, packed) is False:
        raise ArtifactError("the bundle holds more than its packed source; make it again or copy it again")
    return source


def pack_like(content: bytes, packed: bytes) -> bool:
    """Whether a file is the frame of a bundle around ``packed`` and nothing else."""
    choices = [(b"import linecache as l,brotli", b"brotli.decompress(%s)")]
    for choice in FILTERS:
        call = b"lzma.decompress(%%s,3,None,[{'id':33,'dict_size':1<<20,'lc':%d,'pb':%d}])" % (choice["lc"], choice["pb"])
        choices.append((b"import linecache as l,lzma", call))
    return any(_file(imports, call, packed) == content for imports, call in choices)


def _decompress(method: str, packed: bytes, call: ast.Call) -> str:
    if method == "brotli":
        decoder = brotli.Decompressor()
        source = decoder.process(packed, output_buffer_limit=MOST_SOURCE_BYTES)
        if not decoder.is_finished():
            raise ValueError("the packed source ends early or is too long")
        return source.decode()
    settings = ast.literal_eval(ast.unparse(call.args[3]).replace("1 << 20", str(1 << 20)))
    unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=settings)
    source = unpacker.decompress(packed, max_length=MOST_SOURCE_BYTES)
    if not unpacker.eof:
        raise ValueError("the packed source ends early or is too long")
    return source.decode()
