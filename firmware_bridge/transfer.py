"""Content-addressed blobs: how one gets from the host to the device, and resumes where an earlier try ended.

The host asks with the digest and the size; the device answers with the offset it has staged, or that it has the blob;
the host sends chunks from there; the device hashes what it gets, and only a blob with the right SHA-256 is committed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

from firmware_bridge import limits
from firmware_bridge.errors import DeviceRefused, LocalProtocolError
from firmware_bridge.handler import BlobStore
from firmware_bridge.wire.messages import BeginUpload, BlobChunk, BlobStored, RefusalCode, Refused, UploadReady


class Receiver:
    """Device: takes one blob at a time; a new one puts the last aside, staged.

    Args:
        store: where blobs lie.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._upload: BeginUpload | None = None
        self._offset = 0
        self._hash = hashlib.sha256()

    def begin(self, upload: BeginUpload) -> UploadReady | BlobStored | Refused:
        """Get ready for a blob; what is staged of it is hashed again, so that a stored byte that flipped is found.

        Raises:
            DeviceRefused, OSError: from the store.
        """
        self._upload = None
        digest = upload.digest.hex()
        if self._store.has(digest):
            return BlobStored(upload.request)
        staged = self._store.staged_bytes(digest)
        if staged > upload.size:
            self._store.discard(digest)
            staged = 0
        self._store.reserve(digest, upload.size)
        self._hash = hashlib.sha256()
        if staged:
            for piece in self._store.read_staged(digest):
                self._hash.update(piece)
        self._upload, self._offset = upload, staged
        if staged == upload.size:
            return self._finish(upload)
        return UploadReady(upload.request, staged)

    def chunk(self, chunk: BlobChunk) -> BlobStored | Refused | None:
        """Take a chunk; None: go on. A chunk of an upload that was refused or replaced is dropped.

        Raises:
            DeviceRefused, OSError: from the store; the upload is over.
        """
        upload = self._upload
        if upload is None or chunk.request != upload.request:
            return None
        if chunk.offset != self._offset or self._offset + len(chunk.data) > upload.size:
            self._upload = None
            what = f"{len(chunk.data)} bytes at {chunk.offset}, where {self._offset} of {upload.size} are here"
            return Refused(upload.request, RefusalCode.OFFSET, what)
        self._upload = None  # until the store has taken the bytes
        self._store.append(upload.digest.hex(), chunk.offset, chunk.data)
        self._upload = upload
        self._hash.update(chunk.data)
        self._offset += len(chunk.data)
        return self._finish(upload) if self._offset == upload.size else None

    def _finish(self, upload: BeginUpload) -> BlobStored | Refused:
        self._upload = None
        digest = upload.digest.hex()
        found = self._hash.hexdigest()
        if found != digest:
            self._store.discard(digest)
            return Refused(
                upload.request, RefusalCode.HASH_MISMATCH, f"the blob's SHA-256 is {found}, {digest} was announced"
            )
        self._store.commit(digest)
        return BlobStored(upload.request)


class Source:
    """Host: a blob's bytes, from memory or a file.

    Args:
        digest: SHA-256 of the whole, 64 lower-case hex digits.
        data: the bytes, or the file that holds them.
    """

    def __init__(self, digest: str, data: bytes | Path) -> None:
        self.digest = digest_bytes(digest)
        self._data = data
        try:
            self.size = len(data) if isinstance(data, bytes) else data.stat().st_size
        except OSError as error:
            raise LocalProtocolError(f"the blob cannot be read: {error.strerror}", where=str(data)) from None
        if not 1 <= self.size <= limits.MAX_BLOB:
            raise LocalProtocolError(f"a blob of {self.size} bytes is outside 1..{limits.MAX_BLOB}", where=digest)

    def chunks(self, request: int, offset: int) -> Iterator[BlobChunk]:
        """The chunks from `offset` on, to be sent under `request`. LocalProtocolError: the file has become shorter."""
        with io.BytesIO(self._data) if isinstance(self._data, bytes) else self._data.open("rb") as file:
            file.seek(offset)
            while data := file.read(min(limits.CHUNK, self.size - offset)):
                yield BlobChunk(request, offset, data)
                offset += len(data)
        if offset < self.size:
            raise LocalProtocolError(
                f"the file has become shorter, {offset} bytes, while it was sent", where=str(self._data)
            )


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
