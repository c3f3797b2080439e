"""An indexed or grey PNG that is compressed as its rows come, for masks too large to be kept until the end."""

import struct
import zlib

import numpy as np
import numpy.typing as npt

_LEVEL = 1
_BLOCK_BYTES = 1 << 20
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _INDEXED = 0, 3


class PngStream:
    """Makes one PNG (Portable Network Graphics, third edition, W3C 2025), of rows without filters.

    Args:
        height: px.
        width: px.
        palette: three bytes a colour, at most 256 colours, for pixels of 8 bits; None for 16-bit grey.
    """

    def __init__(self, height: int, width: int, palette: bytes | None) -> None:
        depth, kind = (16, _GREY) if palette is None else (8, _INDEXED)
        self._dtype = np.dtype(">u2" if palette is None else "u1")
        header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
        self._chunks = [_SIGNATURE, _chunk(b"IHDR", header)]
        if palette is not None:
            self._chunks.append(_chunk(b"PLTE", palette))
        self._compressor = zlib.compressobj(_LEVEL)
        self._waiting = bytearray()

    def add(self, rows: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
        """Takes the next rows, (h, width); how rows are divided changes no byte."""
        pixels = np.ascontiguousarray(rows, self._dtype).view(np.uint8).reshape(len(rows), -1)
        self._waiting += np.pad(pixels, ((0, 0), (1, 0))).tobytes()  # each row begins with its filter, 0 for none
        whole = len(self._waiting) // _BLOCK_BYTES * _BLOCK_BYTES
        for start in range(0, whole, _BLOCK_BYTES):
            self._append(self._compressor.compress(bytes(self._waiting[start : start + _BLOCK_BYTES])))
        del self._waiting[:whole]

    def finish(self) -> bytes:
        """The file; to be called once, after the last row."""
        self._append(self._compressor.compress(bytes(self._waiting)) + self._compressor.flush())
        return b"".join([*self._chunks, _chunk(b"IEND", b"")])

    def _append(self, data: bytes) -> None:
        if data:
            self._chunks.append(_chunk(b"IDAT", data))


def _chunk(kind: bytes, data: bytes) -> bytes:
    checked = kind + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))
