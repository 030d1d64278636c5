"""Bytes in and out without trust: variable-length integers, a bounded cursor and a bounded brotli decoder."""

import brotli

from fairway.base.errors import ArtifactError


def damaged(what: str) -> ArtifactError:
    """The error for bytes that no writer of ours produces, with the remedy that always applies."""
    return ArtifactError(f"{what}; the artifact is damaged or forged: copy it again from its source or pack the run again")


def varint(value: int) -> bytes:
    """Encode ``value >= 0`` as LEB128: 7 bits per byte, lowest first, the top bit set on all but the last byte."""
    assert value >= 0
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> int:
    """Map 0, -1, 1, -2, ... to 0, 1, 2, 3, ... so that small magnitudes stay small."""
    return value * 2 if value >= 0 else -value * 2 - 1


def unzigzag(value: int) -> int:
    """Inverse of ``zigzag``."""
    return value // 2 if value % 2 == 0 else -(value + 1) // 2


class Cursor:
    """Reads a byte string from left to right and refuses to pass its end.

    Args:
        data: The bytes.
        what: Their name in messages ("manifest").
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self._position = 0

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes.

        Raises:
            ArtifactError: fewer bytes are left.
        """
        if count > len(self._data) - self._position:
            left = len(self._data) - self._position
            raise damaged(f"the {self._what} asks for {count} bytes at its byte {self._position} where {left} are left")
        piece = self._data[self._position : self._position + count]
        self._position += count
        return piece

    def byte(self) -> int:
        """The next byte as an integer."""
        return self.take(1)[0]

    def varint(self) -> int:
        """The next LEB128 integer, below 2**63.

        Raises:
            ArtifactError: the bytes end inside it, or it needs more than 9 bytes.
        """
        value = 0
        for shift in range(0, 63, 7):
            piece = self.byte()
            value |= (piece & 0x7F) << shift
            if piece < 0x80:
                return value
        raise damaged(f"the {self._what} holds a number of more than 63 bits at its byte {self._position}")

    def rest(self) -> bytes:
        """All bytes that are left."""
        return self.take(len(self._data) - self._position)

    def done(self) -> bool:
        """Whether nothing is left."""
        return self._position == len(self._data)

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            ArtifactError: bytes follow the last field.
        """
        if not self.done():
            raise damaged(f"the {self._what} has {len(self._data) - self._position} bytes after its last field")


def brotli_pack(data: bytes, quality: int = 11) -> bytes:
    """Compress with brotli (RFC 7932) at the given quality and its largest standard window, 2**24 bytes."""
    return brotli.compress(data, quality=quality, lgwin=24)


def brotli_unpack(data: bytes, size: int, what: str) -> bytes:
    """Decompress to exactly ``size`` bytes; the memory used stays near ``size`` whatever the input claims.

    Raises:
        ArtifactError: the stream is invalid, incomplete, followed by other bytes, or does not decode to ``size`` bytes.
    """
    decoder = brotli.Decompressor()
    out = bytearray()
    feed = data
    try:
        while len(out) <= size and not decoder.is_finished():
            piece = decoder.process(feed, output_buffer_limit=size + 1 - len(out))
            if not piece and not feed:
                break
            out += piece
            feed = b""
    except brotli.error:
        raise damaged(f"the {what} is not a valid brotli stream") from None
    if len(out) != size or not decoder.is_finished():
        raise damaged(f"the {what} does not decompress to the {size} bytes it declares")
    return bytes(out)
