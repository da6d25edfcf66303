"""The blobs as the bridge's receiver sees them: the same methods, with refusals in the wire's own codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.device.answers import refusal
from edge.device.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.device.blobs import Blobs


class Intake:
    """Implements ``firmware_bridge.handler.BlobStore`` on ``Blobs``."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def has(self, digest: str) -> bool:
        """Whether the blob is here, complete."""
        return self._blobs.has(digest)

    def reserve(self, digest: str, size: int) -> None:
        """Make sure it fits. DeviceRefused(NO_SPACE) if not."""
        with _Refusing():
            self._blobs.reserve(digest, size)

    def read_index(self, digest: str) -> bytes:
        """The staged list of chunks."""
        return self._blobs.read_index(digest)

    def append_index(self, digest: str, offset: int, data: bytes) -> None:
        """Add bytes to it. DeviceRefused(STORAGE, NO_SPACE)."""
        with _Refusing():
            self._blobs.append_index(digest, offset, data)

    def read(self, digest: str, offset: int, size: int) -> bytes:
        """Bytes of the staged blob."""
        return self._blobs.read(digest, offset, size)

    def write(self, digest: str, offset: int, data: bytes) -> None:
        """Put bytes of it in their place. DeviceRefused(STORAGE, NO_SPACE)."""
        with _Refusing():
            self._blobs.write(digest, offset, data)

    def commit(self, digest: str) -> None:
        """Make the staged blob complete, durably. DeviceRefused(STORAGE, NO_SPACE)."""
        with _Refusing():
            self._blobs.commit(digest)

    def discard(self, digest: str) -> None:
        """Throw the staged blob away."""
        self._blobs.discard(digest)

    def blobs(self) -> Sequence[str]:
        """The complete blobs."""
        return self._blobs.blobs()

    def blob_index(self, digest: str) -> bytes:
        """The list of a complete blob's chunks."""
        return self._blobs.blob_index(digest)

    def read_blob(self, digest: str, offset: int, size: int) -> bytes:
        """Bytes of a complete blob."""
        return self._blobs.read_blob(digest, offset, size)


class _Refusing:
    """Turns the storage's errors inside into refusals."""

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, StorageError):
            raise refusal(error) from error
