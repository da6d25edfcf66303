"""Blobs from the host to the device, chunk by chunk: what the device has is not sent, what arrives is proved at once.

    host                                device
    BeginUpload(digest, size, list) ->
                                     <- UploadReady(offset)         the list's bytes that are staged from an earlier try
    IndexPart ... (the rest of it)  ->
                                     <- ChunksWanted ...            looked for in the staged blob and in every blob
    BlobChunk ... (those)           ->                              each proved by the list, and put in its place
                                     <- BlobStored                  read back, SHA-256 right, durable

Nothing that the host says about a blob is believed: the list proves chunks early, the blob's digest proves them all.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from firmware_bridge import limits
from firmware_bridge.chunks import ChunkList, deflate, inflate, list_bound
from firmware_bridge.errors import DeviceRefused, LocalProtocolError
from firmware_bridge.handler import BlobStore
from firmware_bridge.wire.messages import (
    BeginUpload,
    BlobChunk,
    BlobStored,
    ChunksWanted,
    IndexPart,
    RefusalCode,
    Refused,
    UploadReady,
)

DEFLATE: Final = "deflate"
"""The capability of a device that takes compressed chunks."""
CAPABILITIES: Final = (DEFLATE,)

SLICE: Final = 256 * 1024
"""Bytes that the device reads and hashes before it looks at the line again."""

Answer = UploadReady | ChunksWanted | BlobStored | Refused
Work = Iterator[Answer | None]


class Receiver:
    """Device: takes one blob at a time; a new one puts the last aside, staged.

    What takes long is done in slices: `work` does one, and is called again while `busy`.

    Args:
        store: where blobs lie.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self.stop()

    @property
    def busy(self) -> bool:
        """Whether `work` has something to do."""
        return self._work is not None

    def stop(self) -> None:
        """Nobody waits for this upload any more; what is staged stays."""
        self._upload: BeginUpload | None = None
        self._held = 0  # bytes of the list
        self._resumed = False  # whether the list's first bytes are from an earlier try
        self._chunks: ChunkList | None = None
        self._missing: set[int] = set()
        self._copies: dict[int, list[int]] = {}  # chunks that are the same as the one asked for
        self._work: Work | None = None

    def take(self, message: BeginUpload | IndexPart | BlobChunk) -> Answer | None:
        """Deal with a message of an upload; what there is to say at once, if anything: the rest comes from `work`.

        A list's part or a chunk of an upload that was refused or replaced is dropped.

        Raises:
            DeviceRefused, OSError: from the store; the upload is over.
        """
        match message:
            case BeginUpload():
                return self._begin(message)
            case IndexPart():
                return self._take_part(message)
            case _:
                return self._take_chunk(message)

    def work(self) -> Answer | None:
        """Do a slice of what takes long; what there is to say, if anything. Errors of the store are answers here."""
        work, upload = self._work, self._upload
        if work is None or upload is None:
            self._work = None
            return None
        try:
            return next(work)
        except StopIteration:
            self._work = None
        except (DeviceRefused, OSError) as error:
            self.stop()
            return refusal(upload.request, error)
        return None

    # ------------------------------------------------------------------ messages

    def _begin(self, upload: BeginUpload) -> Answer | None:
        self.stop()
        digest = upload.digest.hex()
        if self._store.has(digest):
            return BlobStored(upload.request)
        if upload.index_size > list_bound(upload.size):
            what = f"a list of {upload.index_size} bytes is too long for a blob of {upload.size}"
            return Refused(upload.request, RefusalCode.BAD_INPUT, what)
        self._store.reserve(digest, upload.size + upload.index_size)
        staged = self._store.read_index(digest)
        if len(staged) > upload.index_size or (len(staged) == upload.index_size and not _is_list(staged, upload)):
            self._store.discard(digest)
            staged = b""
        self._upload, self._held, self._resumed = upload, len(staged), bool(staged)
        if self._held == upload.index_size:
            return self._take_list(staged)
        return UploadReady(upload.request, self._held)

    def _take_part(self, part: IndexPart) -> Answer | None:
        upload = self._upload
        if upload is None or part.request != upload.request:
            return None
        if part.offset != self._held or self._held + len(part.data) > upload.index_size:
            self.stop()
            what = f"{len(part.data)} bytes of the list at {part.offset}, where {self._held} are here"
            return Refused(upload.request, RefusalCode.OFFSET, what)
        digest = upload.digest.hex()
        self._upload = None  # until the store has taken the bytes
        self._store.append_index(digest, part.offset, part.data)
        self._upload = upload
        self._held += len(part.data)
        if self._held < upload.index_size:
            return None
        staged = self._store.read_index(digest)
        if _is_list(staged, upload):
            return self._take_list(staged)
        self._store.discard(digest)
        if self._resumed:  # its first bytes were of another list: once more from the start
            self._held, self._resumed = 0, False
            return UploadReady(upload.request, 0)
        self.stop()
        return Refused(upload.request, RefusalCode.HASH_MISMATCH, "the list of chunks is not the one announced")

    def _take_chunk(self, chunk: BlobChunk) -> Answer | None:
        upload, chunks = self._upload, self._chunks
        if upload is None or chunks is None or chunk.request != upload.request:
            return None
        if chunk.number not in self._missing:
            self.stop()
            return Refused(upload.request, RefusalCode.OFFSET, f"chunk {chunk.number} was not asked for")
        try:
            data = inflate(chunk.data, chunks.size(chunk.number)) if chunk.is_deflated else chunk.data
        except ValueError as error:
            self.stop()
            return Refused(upload.request, RefusalCode.HASH_MISMATCH, f"chunk {chunk.number}: {error}")
        if not chunks.proves(chunk.number, data):
            self.stop()
            what = f"chunk {chunk.number} has not the SHA-256 that its list says"
            return Refused(upload.request, RefusalCode.HASH_MISMATCH, what)
        self._upload = None  # until the store has taken the bytes
        for number in (chunk.number, *self._copies.get(chunk.number, ())):
            self._store.write(upload.digest.hex(), chunks.offset(number), data)
        self._upload = upload
        self._missing.discard(chunk.number)
        if not self._missing:
            self._work = self._finish(upload, chunks)
        return None

    # ------------------------------------------------------------------ in slices

    def _take_list(self, data: bytes) -> Refused | None:
        """The list is whole and the one announced: see what is missing."""
        upload = self._upload
        assert upload is not None
        try:
            chunks = ChunkList(data)
            if chunks.total != upload.size:
                raise ValueError(f"its chunks have {chunks.total} bytes, {upload.size} were announced")  # noqa: TRY301
        except ValueError as error:
            self._store.discard(upload.digest.hex())
            self.stop()
            return Refused(upload.request, RefusalCode.BAD_INPUT, clip(f"the list of chunks: {error}"))
        self._work = self._survey(upload, chunks)
        return None

    def _survey(self, upload: BeginUpload, chunks: ChunkList) -> Work:
        """Find the chunks that are here, in the staged blob or in other blobs, and ask for the rest."""
        digest = upload.digest.hex()
        missing = set()
        for number in range(len(chunks)):
            if not chunks.proves(number, self._store.read(digest, chunks.offset(number), chunks.size(number))):
                missing.add(number)
            if chunks.offset(number) // SLICE != chunks.offset(number + 1) // SLICE:
                yield None
        places: dict[bytes, list[int]] = {}
        for number in sorted(missing):
            places.setdefault(chunks.digest(number), []).append(number)
        for blob in self._store.blobs() if places else ():
            yield None
            yield from self._copy(digest, chunks, places, blob)
        self._copies = {numbers[0]: numbers[1:] for numbers in places.values()}
        self._missing = set(self._copies)
        self._chunks = chunks
        yield from self._ask(upload, chunks) if self._missing else self._finish(upload, chunks)

    def _ask(self, upload: BeginUpload, chunks: ChunkList) -> Work:
        """Tell the host which chunks are missing."""
        step = 8 * limits.CHUNK
        for first in range(0, len(chunks), step):
            last = min(first + step, len(chunks))
            bitmap = bytearray((last - first + 7) // 8)
            for number in range(first, last):
                if number in self._missing:
                    bitmap[(number - first) // 8] |= 1 << (number - first) % 8
            yield ChunksWanted(upload.request, first, bytes(bitmap), last == len(chunks))

    def _copy(self, digest: str, chunks: ChunkList, places: dict[bytes, list[int]], blob: str) -> Work:
        """Take from a blob that is here what the new one shares with it."""
        try:
            there = ChunkList(self._store.blob_index(blob))
        except ValueError:
            return  # without a readable list its chunks are unknown; it is a blob all the same
        done = 0
        for number in range(len(there)):
            if there.digest(number) not in places:
                continue
            data = self._store.read_blob(blob, there.offset(number), there.size(number))
            numbers = places[there.digest(number)]
            if chunks.proves(numbers[0], data):
                for place in numbers:
                    self._store.write(digest, chunks.offset(place), data)
                del places[there.digest(number)]
            done += len(data)
            if done >= SLICE:
                done = 0
                yield None

    def _finish(self, upload: BeginUpload, chunks: ChunkList) -> Work:
        """Read the whole blob back, and commit it if it is the one announced."""
        digest, found = upload.digest.hex(), hashlib.sha256()
        for offset in range(0, chunks.total, SLICE):
            found.update(self._store.read(digest, offset, min(SLICE, chunks.total - offset)))
            yield None
        if found.digest() == upload.digest:
            self._store.commit(digest)
            self.stop()
            yield BlobStored(upload.request)
        else:
            self._store.discard(digest)
            self.stop()
            what = f"the blob's SHA-256 is {found.hexdigest()}, {digest} was announced"
            yield Refused(upload.request, RefusalCode.HASH_MISMATCH, what)


def _is_list(data: bytes, upload: BeginUpload) -> bool:
    return hashlib.sha256(data).digest() == upload.index


class Source:
    """Host: a blob's bytes, from memory or a file, and their list of chunks.

    Args:
        digest: SHA-256 of the whole, 64 lower-case hex digits.
        data: the bytes, or the file that holds them.

    Raises:
        LocalProtocolError: no digest, an empty blob, or one that cannot be read or is too large.
    """

    def __init__(self, digest: str, data: bytes | Path) -> None:
        self.digest = digest_bytes(digest)
        self._data = data
        try:
            self.size = len(data) if isinstance(data, bytes) else data.stat().st_size
            if not 1 <= self.size <= limits.MAX_BLOB:
                raise LocalProtocolError(f"a blob of {self.size} bytes is outside 1..{limits.MAX_BLOB}", where=digest)
            with self.open() as file:
                self.chunks = ChunkList.of(file)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise LocalProtocolError(f"the blob cannot be read: {why}", where=str(data)[:80]) from None

    def open(self) -> BinaryIO:
        """The bytes as a file."""
        return io.BytesIO(self._data) if isinstance(self._data, bytes) else self._data.open("rb")

    def begin(self, request: int) -> BeginUpload:
        """The announcement."""
        return BeginUpload(request, self.digest, self.chunks.total, self.chunks.root, len(self.chunks.data))

    def index_parts(self, request: int, offset: int) -> Iterator[IndexPart]:
        """The list's bytes from `offset` on."""
        for at in range(offset, len(self.chunks.data), limits.CHUNK):
            yield IndexPart(request, at, self.chunks.data[at : at + limits.CHUNK])

    def wanted(self, request: int, numbers: Sequence[int], *, packs: bool) -> Iterator[BlobChunk]:
        """The chunks of these numbers, compressed where `packs` and it pays.

        Raises:
            LocalProtocolError: the file has changed since its list was made.
        """
        with self.open() as file:
            for number in numbers:
                file.seek(self.chunks.offset(number))
                data = file.read(self.chunks.size(number))
                if not self.chunks.proves(number, data):
                    where = str(self._data)[:80]
                    raise LocalProtocolError("the file has changed while it was sent", where=where)
                packed = deflate(data) if packs else None
                yield BlobChunk(request, number, packed is not None, packed or data)


def numbers_wanted(message: ChunksWanted) -> list[int]:
    """The chunks that the device asks for."""
    bits = ((n, bit) for n, byte in enumerate(message.bitmap) for bit in range(8) if byte >> bit & 1)
    return [message.first + 8 * n + bit for n, bit in bits]


def digest_bytes(digest: str) -> bytes:
    """The 32 bytes of a digest in hex. LocalProtocolError: it is none."""
    try:
        value = bytes.fromhex(digest)
    except ValueError:
        value = b""
    if len(value) != 32 or value.hex() != digest:
        raise LocalProtocolError("a digest is 64 lower-case hex digits", where=repr(digest))
    return value


def refusal(request: int, error: DeviceRefused | OSError) -> Refused:
    """The answer that tells the host why its request failed here."""
    if isinstance(error, DeviceRefused):
        return Refused(request, error.code, clip(error.what))
    return Refused(request, RefusalCode.STORAGE, clip(f"the device's storage failed: {error.strerror or error}"))


def clip(text: str) -> str:
    """The text, cut to what a message may hold; bytes of file names that are no UTF-8 become question marks."""
    text = text.encode(errors="replace").decode()
    return text if len(text) <= limits.MAX_TEXT else text[: limits.MAX_TEXT - 1] + "…"
