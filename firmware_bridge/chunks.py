"""Blobs as lists of chunks: where the boundaries are, and the list that proves each chunk on its own.

Boundaries follow the content (as in LBFS, Muthitacharoen et al., SOSP 2001): a chunk ends after three bytes that lie in
three fixed sets of twenty, so that bytes put in or taken out change the chunks around them and no others, and a
device that has an older version of a blob is sent the difference. A list is a hash tree of two levels: its own SHA-256
is the root, its entries are the leaves. An entry is the chunk's size, u16 little-endian, and its SHA-256.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from array import array
from collections.abc import Iterator
from typing import BinaryIO, Final

from firmware_bridge import limits

MIN_CHUNK: Final = 4 * 1024
"""Bytes of a chunk, but for a blob's last: below it the list would grow to more than 1% of the blob."""

MAX_CHUNK: Final = limits.MAX_MESSAGE - 320
"""Bytes of a chunk: it travels whole in one message, so that nothing smaller than a chunk has to be resumed."""

ENTRY: Final = 34
_PIECE: Final = 1 << 20
_PAYS: Final = 0.97
"""A chunk goes compressed where that takes no more than this share of it."""

_SETS: Final = tuple(hashlib.sha256(b"boundary %d" % n).digest()[:20] for n in range(3))
_BOUNDARY: Final = re.compile(b"".join(b"[" + re.escape(each) + b"]" for each in _SETS), re.DOTALL)


def cut(file: BinaryIO) -> Iterator[bytes]:
    """A file's chunks in order; they depend on its bytes alone."""
    buffer, start = b"", 0
    while True:
        if len(buffer) - start < MAX_CHUNK:
            buffer, start = buffer[start:] + file.read(_PIECE), 0
        if start == len(buffer):
            return
        match = _BOUNDARY.search(buffer, start + MIN_CHUNK - len(_SETS), start + MAX_CHUNK)
        end = match.end() if match else min(start + MAX_CHUNK, len(buffer))
        yield buffer[start:end]
        start = end


class ChunkList:
    """The chunks of one blob.

    Args:
        data: the list's bytes.

    Raises:
        ValueError: not a list of chunks.
    """

    def __init__(self, data: bytes) -> None:
        if not data or len(data) % ENTRY:
            raise ValueError(f"{len(data)} bytes are no list of chunks")
        self.data = data
        self._ends = array("Q")
        end = 0
        for at in range(0, len(data), ENTRY):
            size = int.from_bytes(data[at : at + 2], "little")
            if not 1 <= size <= MAX_CHUNK:
                raise ValueError(f"a chunk of {size} bytes")
            end += size
            self._ends.append(end)

    @classmethod
    def of(cls, file: BinaryIO) -> ChunkList:
        """The list of a file that is not empty."""
        entries = (len(chunk).to_bytes(2, "little") + hashlib.sha256(chunk).digest() for chunk in cut(file))
        return cls(b"".join(entries))

    def __len__(self) -> int:
        """How many chunks."""
        return len(self._ends)

    @property
    def root(self) -> bytes:
        """SHA-256 of the list."""
        return hashlib.sha256(self.data).digest()

    @property
    def total(self) -> int:
        """Bytes of the blob."""
        return self._ends[-1]

    def offset(self, number: int) -> int:
        """Where a chunk begins in the blob."""
        return self._ends[number - 1] if number else 0

    def size(self, number: int) -> int:
        """Bytes of a chunk."""
        return self._ends[number] - self.offset(number)

    def digest(self, number: int) -> bytes:
        """SHA-256 of a chunk."""
        return self.data[number * ENTRY + 2 : (number + 1) * ENTRY]

    def proves(self, number: int, chunk: bytes) -> bool:
        """Whether these are the chunk's bytes."""
        return len(chunk) == self.size(number) and hashlib.sha256(chunk).digest() == self.digest(number)


def list_bound(size: int) -> int:
    """Bytes that the list of a blob of `size` bytes may have at most."""
    return ENTRY * (size // MIN_CHUNK + 1)


def deflate(chunk: bytes) -> bytes | None:
    """The chunk as a zlib stream (RFC 1950), or None where that does not pay."""
    packed = zlib.compress(chunk)
    return packed if len(packed) <= _PAYS * len(chunk) else None


def inflate(packed: bytes, size: int) -> bytes:
    """What `deflate` packed; never more than `size` + 1 bytes. ValueError: no zlib stream of `size` bytes."""
    stream = zlib.decompressobj()
    try:
        chunk = stream.decompress(packed, size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(chunk) != size or not stream.eof or stream.unused_data:
        raise ValueError(f"no zlib stream of {size} bytes")
    return chunk
