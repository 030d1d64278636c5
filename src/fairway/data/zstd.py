"""A reader of Zstandard files that notices a cut file, which the library's own stream reader passes over silently."""

import io
from pathlib import Path

from fairway.base.errors import MachineError


def open_zstd(path: Path) -> io.BufferedReader:
    """Open a ``.zst`` file (one or several frames) for reading its uncompressed bytes.

    Raises:
        MachineError: the zstandard library is not installed.
        EOFError: while reading, the file is damaged or ends inside a frame.
    """
    try:
        import zstandard
    except ImportError:
        raise MachineError(f"{path} needs zstandard, which is not installed; run: pip install 'fairway[data]'") from None
    return io.BufferedReader(_ZstdRaw(path, zstandard), 1 << 20)


class _ZstdRaw(io.RawIOBase):
    def __init__(self, path: Path, library) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - closed with this reader
        self._library = library
        self._decoder = None
        self._pending = b""
        self._input = b""

    def readable(self) -> bool:
        return True

    def readinto(self, target) -> int:
        while not self._pending:
            if not self._input:
                self._input = self._file.read(1 << 17)
            if not self._input:
                if self._decoder is not None:
                    raise EOFError("it ends inside a Zstandard frame")
                return 0
            self._decode()
        count = min(len(target), len(self._pending))
        target[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count

    def _decode(self) -> None:
        if self._decoder is None:
            self._decoder = self._library.ZstdDecompressor().decompressobj()
        try:
            self._pending = self._decoder.decompress(self._input)
        except self._library.ZstdError as error:
            raise EOFError(str(error)) from None
        self._input = b""
        if self._decoder.eof:
            self._input = self._decoder.unused_data
            self._decoder = None

    def close(self) -> None:
        self._file.close()
        super().close()
