"""The store as the bridge's receiver sees it: the same methods, with refusals in the wire's own codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.device.answers import refusal
from edge.device.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge.device.store import Store


class Intake:
    """Implements ``firmware_bridge.handler.BlobStore`` on a ``Store``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def has(self, digest: str) -> bool:
        """Whether the blob is here, complete."""
        return self._store.has(digest)

    def staged_bytes(self, digest: str) -> int:
        """Bytes that an earlier try left."""
        return self._store.staged_bytes(digest)

    def read_staged(self, digest: str) -> Iterator[bytes]:
        """Those bytes, from the start."""
        return self._store.read_staged(digest)

    def reserve(self, digest: str, size: int) -> None:
        """Make sure it fits. DeviceRefused(NO_SPACE) if not."""
        try:
            self._store.reserve(digest, size)
        except StorageError as error:
            raise refusal(error) from error

    def append(self, digest: str, offset: int, data: bytes) -> None:
        """Add bytes to the staged blob. DeviceRefused(STORAGE, NO_SPACE)."""
        try:
            self._store.append(digest, offset, data)
        except StorageError as error:
            raise refusal(error) from error

    def commit(self, digest: str) -> None:
        """Make the staged blob complete, durably. DeviceRefused(STORAGE, NO_SPACE)."""
        try:
            self._store.commit(digest)
        except StorageError as error:
            raise refusal(error) from error

    def discard(self, digest: str) -> None:
        """Throw the staged bytes away."""
        self._store.discard(digest)
