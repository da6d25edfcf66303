"""Blobs on the device's disk: staged while they grow, complete under their SHA-256, within a budget.

    blobs/<sha256>             complete and verified, named by content
    indexes/<sha256>           the list of a blob's chunks, so that the next version is sent as the difference
    staging/<sha256>.part      an upload under way, with holes where chunks are missing
    staging/<sha256>.index     the list of its chunks

A file enters ``blobs`` by rename, after its bytes are on the disk. Digests are 64 lower-case hex digits. Thread-safe.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
import threading
from typing import TYPE_CHECKING

from edge.device import durable
from edge.device.errors import NoSpace, StorageError

if TYPE_CHECKING:
    from edge.device.disk import Disk

log = logging.getLogger(__name__)

DIGEST = re.compile(r"[0-9a-f]{64}")
_RESERVE = 16 * 2**20  # bytes of the disk left alone: logs and the journal must still be written
_PIECE = 2**20
_SYNC_EVERY = 2**20  # bytes of an upload that a power cut may take; keeps each wait for the disk short


class Blobs:
    """The blobs of a device.

    Args:
        disk: where they lie.
        budget: bytes that blobs, uploads and their lists may take together.

    Raises:
        StorageError: from any method: no digest, or the disk refuses; NoSpace where it is full.
    """

    def __init__(self, disk: Disk, budget: int) -> None:
        self._disk = disk
        self._budget = budget
        self._lock = threading.RLock()
        self._wanted: set[str] = set()  # asked about or sent since the last `keep`: not to be thrown out
        self._unsynced: dict[str, int] = {}
        for folder in ("blobs", "indexes", "staging"):
            durable.make_folder(disk, folder)
            durable.remove_unfinished(disk, folder)
        for digest in set(disk.names("indexes")) - set(disk.names("blobs")):
            disk.remove(f"indexes/{digest}")

    # Complete blobs

    def has(self, digest: str) -> bool:
        """Whether the blob is here, complete; it was verified when it came, and is again before it is used."""
        with self._lock:
            self._wanted.add(digest)
            return self.size(digest) is not None

    def size(self, digest: str) -> int | None:
        """Bytes of a complete blob; None where it is not here."""
        return self._disk.size(name(digest))

    def blobs(self) -> list[str]:
        """The digests of the complete blobs."""
        return self._disk.names("blobs")

    def blob_index(self, digest: str) -> bytes:
        """The list of a blob's chunks; empty where it is not known."""
        return self._read(f"indexes/{digest}")

    def read_blob(self, digest: str, offset: int = 0, size: int = -1) -> bytes:
        """Bytes of a blob; none where it is gone."""
        return self._read(name(digest), offset, size)

    def hash(self, digest: str) -> str:
        """SHA-256 of a blob as it lies on the disk, hex."""
        found, offset = hashlib.sha256(), 0
        while piece := self.read_blob(digest, offset, _PIECE):
            found.update(piece)
            offset += len(piece)
        return found.hexdigest()

    def throw_out(self, digest: str) -> None:
        """Delete a blob that is not what its name says."""
        log.error("blob %s is damaged and thrown out", digest[:12])
        with self._lock:
            self._remove(digest)

    def keep(self, needed: set[str]) -> None:
        """Throw out every blob but these and those that a host has asked about or sent since the last call."""
        with self._lock:
            for digest in self.blobs():
                if digest not in needed | self._wanted:
                    self._remove(digest)
            self._wanted.clear()

    # Uploads

    def free(self) -> int:
        """Bytes that uploads may still take."""
        with self._lock:
            return max(0, min(self._budget - self._used(), self._disk.free() - _RESERVE))

    def reserve(self, digest: str, size: int) -> None:
        """Make sure that an upload of ``size`` bytes, its list among them, fits; throws out what nobody needs.

        Raises:
            NoSpace: it does not fit even so.
        """
        with self._lock:
            self._wanted.add(digest)
            needed = size - self._staged(digest)
            if needed > self.free():
                self._make_room(needed)
            if needed > self.free():
                raise NoSpace(
                    f"{needed} bytes do not fit, {self.free()} are free of a budget of {self._budget}",
                    where=f"blob {digest[:12]}",
                    mend="use a smaller model, or raise storage.budget_bytes in the board's file",
                )

    def read_index(self, digest: str) -> bytes:
        """The staged list of an upload's chunks, as far as it is here."""
        return self._read(_staged_index(digest))

    def append_index(self, digest: str, offset: int, data: bytes) -> None:
        """Add bytes to the staged list; at 0 a new one begins."""
        with self._lock, disk_errors(f"blob {digest[:12]}"):
            if not offset:
                durable.remove(self._disk, _staged_index(digest))
            self._disk.write(_staged_index(digest), offset, data)

    def read(self, digest: str, offset: int, size: int) -> bytes:
        """Bytes of an upload; fewer, or none, where they are not here."""
        return self._read(_part(digest), offset, size)

    def write(self, digest: str, offset: int, data: bytes) -> None:
        """Put bytes of an upload in their place. They outlive the supervisor; a power cut may take the last MiB."""
        with self._lock, disk_errors(f"blob {digest[:12]}"):
            self._disk.write(_part(digest), offset, data)
            self._unsynced[digest] = self._unsynced.get(digest, 0) + len(data)
            if self._unsynced[digest] >= _SYNC_EVERY:
                self._unsynced[digest] = 0
                for each in (_part(digest), _staged_index(digest), "staging"):
                    self._disk.sync(each)

    def commit(self, digest: str) -> None:
        """Make a whole, verified upload a blob; on disk when it returns."""
        with self._lock, disk_errors(f"blob {digest[:12]}"):
            for each in (_part(digest), _staged_index(digest)):
                self._disk.sync(each)
            durable.move(self._disk, _staged_index(digest), f"indexes/{digest}")
            durable.move(self._disk, _part(digest), name(digest))
            self._unsynced.pop(digest, None)
        log.info("blob %s stored, %d bytes", digest[:12], self.size(digest))

    def discard(self, digest: str) -> None:
        """Throw an upload away."""
        with self._lock:
            for each in (_part(digest), _staged_index(digest)):
                durable.remove(self._disk, each)
            self._unsynced.pop(digest, None)
        log.warning("upload %s thrown away", digest[:12])

    # Inside

    def _read(self, path: str, offset: int = 0, size: int = -1) -> bytes:
        try:
            return self._disk.read(path, offset, size)
        except FileNotFoundError:
            return b""

    def _remove(self, digest: str) -> None:
        for path in (name(digest), f"indexes/{digest}"):
            durable.remove(self._disk, path)

    def _staged(self, digest: str) -> int:
        return sum(self._disk.size(path) or 0 for path in (_part(digest), _staged_index(digest)))

    def _used(self) -> int:
        paths = (f"{folder}/{each}" for folder in ("blobs", "indexes", "staging") for each in self._disk.names(folder))
        return sum(self._disk.size(path) or 0 for path in paths)

    def _make_room(self, needed: int) -> None:
        """Throw out what no bundle and no upload of this session needs, until ``needed`` bytes are free."""
        stale = [each for each in self._disk.names("staging") if each.partition(".")[0] not in self._wanted]
        for each in stale:
            if self.free() < needed:
                log.info("upload %s removed to make room", each[:12])
                self._disk.remove(f"staging/{each}")
        for digest in self.blobs():
            if self.free() < needed and digest not in self._wanted and self._disk.links(name(digest)) == 1:
                log.info("blob %s removed to make room", digest[:12])
                self._remove(digest)


class disk_errors:  # noqa: N801  reads as the statement it is
    """Turns an OSError inside into a StorageError that says what was being written."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            mend = "free space on the device's disk, or look at its health"
            kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
            raise kind(f"the disk refuses: {error.strerror}", where=self._where, mend=mend) from error


def name(digest: str) -> str:
    """Where a complete blob lies or would lie."""
    return f"blobs/{checked(digest)}"


def checked(digest: str) -> str:
    """Digests become file names: nothing else may."""
    if not DIGEST.fullmatch(digest):
        raise StorageError(f"{digest[:80]!r} is not a SHA-256", mend="send 64 lower-case hex digits")
    return digest


def _part(digest: str) -> str:
    return f"staging/{checked(digest)}.part"


def _staged_index(digest: str) -> str:
    return f"staging/{checked(digest)}.index"
