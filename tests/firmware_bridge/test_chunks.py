"""Chunks: boundaries follow the content, the list proves each, and nothing malformed gets through."""

import contextlib
import hashlib
import io
import random
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.chunks import ENTRY, MAX_CHUNK, MIN_CHUNK, ChunkList, cut, deflate, inflate, list_bound


class Trickle(io.BytesIO):
    """A file that gives less than it is asked for, but for its end never nothing."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or -1, 700_001))


def chunks(data: bytes) -> list[bytes]:
    return list(cut(io.BytesIO(data)))


def weights(size: int, seed: int = 1) -> bytes:
    """Bytes with the distribution of quantized weights."""
    chance = random.Random(seed)
    return bytes(max(-127, min(127, round(chance.gauss(0, 35)))) & 0xFF for _ in range(size))


@pytest.mark.parametrize("size", [1, MIN_CHUNK - 1, MIN_CHUNK, MAX_CHUNK, MAX_CHUNK + 1, 1 << 20, 3_000_000])
@pytest.mark.parametrize("kind", ["random", "zeros"])
def test_chunks_are_the_blob_and_keep_their_bounds(size: int, kind: str) -> None:
    data = random.Random(size).randbytes(size) if kind == "random" else bytes(size)
    parts = chunks(data)
    assert b"".join(parts) == data
    assert all(MIN_CHUNK <= len(part) <= MAX_CHUNK for part in parts[:-1])
    assert 1 <= len(parts[-1]) <= MAX_CHUNK
    assert len(parts) * ENTRY <= list_bound(size)


def test_boundaries_do_not_depend_on_how_the_file_is_read() -> None:
    data = random.Random(5).randbytes(3_000_000)
    assert list(cut(Trickle(data))) == chunks(data)


@pytest.mark.parametrize("make", [weights, lambda size: random.Random(2).randbytes(size)], ids=["weights", "random"])
def test_an_insertion_changes_the_chunks_around_it_only(make: Callable[[int], bytes]) -> None:
    data = make(1_000_000)
    changed = b"new" + data[:500_000] + b"bytes in the middle" + data[500_000:]
    old = set(chunks(data))
    assert 6_000 < len(data) / len(old) < 9_000
    fresh = sum(len(part) for part in chunks(changed) if part not in old)
    assert fresh < 0.15 * len(data)


def test_a_list_knows_where_its_chunks_are() -> None:
    data = random.Random(3).randbytes(100_000)
    there = ChunkList.of(io.BytesIO(data))
    parts = chunks(data)
    assert len(there) == len(parts)
    assert there.total == len(data)
    assert there.root == hashlib.sha256(there.data).digest()
    assert [data[there.offset(n) : there.offset(n) + there.size(n)] for n in range(len(there))] == parts
    assert [there.digest(n) for n in range(len(there))] == [hashlib.sha256(part).digest() for part in parts]
    assert there.proves(1, parts[1])
    assert not there.proves(0, parts[1])
    assert not there.proves(0, parts[0][:-1])
    assert not there.proves(0, b"\0" + parts[0][1:])


def test_a_list_of_known_bytes() -> None:
    assert ChunkList.of(io.BytesIO(b"abc")).data.hex() == "0300" + hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize(
    "data",
    [b"", bytes(33), bytes(35), bytes(34), (MAX_CHUNK + 1).to_bytes(2, "little") + bytes(32)],
    ids=["empty", "short", "long", "a chunk of 0", "a chunk too large"],
)
def test_what_is_no_list_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="chunk"):
        ChunkList(data)


def test_compression_is_used_where_it_pays() -> None:
    text = b"the quick brown fox " * 300
    packed = deflate(text)
    assert packed is not None
    assert len(packed) < 0.1 * len(text)
    assert inflate(packed, len(text)) == text
    assert deflate(random.Random(1).randbytes(8000)) is None


@pytest.mark.parametrize(
    "packed",
    [
        zlib.compress(bytes(99)),
        zlib.compress(bytes(101)),
        zlib.compress(bytes(10**8)),
        zlib.compress(bytes(100)) + b"more",
        zlib.compress(bytes(100))[:-1],
        b"",
        b"no stream",
    ],
    ids=["shorter", "longer", "a bomb", "trailing", "cut", "empty", "garbage"],
)
def test_what_does_not_inflate_to_the_size_is_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match=r"stream|header"):
        inflate(packed, 100)


@given(st.binary(max_size=300), st.integers(1, 1000))
@settings(max_examples=200, deadline=None)
def test_inflate_raises_nothing_else(packed: bytes, size: int) -> None:
    with contextlib.suppress(ValueError):
        assert len(inflate(packed, size)) == size
