"""What the device keeps on disk, so that a power cut at any moment leaves it with a bundle that runs.

    blobs/<sha256>             complete and verified, named by content
    staging/<sha256>.part      uploads under way, continued where they stop
    bundles/<bundle id>/       hard links to blobs under the manifest's names, and manifest.json
    active                     ids, newest first: the active bundle, then the one to fall back to

A file enters ``blobs`` and a folder enters ``bundles`` by rename, after everything in it is on the disk. Digests and
bundle ids are 64 lower-case hex digits; a bundle's id is the digest of its manifest. Thread-safe.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import threading
from typing import TYPE_CHECKING, Protocol

from edge.device import durable
from edge.device.errors import BundleRejected, HashMismatch, NoSpace, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
KEPT_BUNDLES = 2
_RESERVE = 16 * 2**20  # bytes of the disk left alone: logs and the journal must still be written
_PIECE = 2**20
_SYNC_EVERY = 2**20  # bytes of an upload: keeps each wait for the disk short
_DIGEST = re.compile(r"[0-9a-f]{64}")


class ListedFile(Protocol):
    """What the store needs to know of a file in a bundle (``edge.bundle.BundleFile`` has it)."""

    @property
    def name(self) -> str:
        """The file's name, without a folder."""

    @property
    def sha256(self) -> str:
        """64 hex digits."""

    @property
    def bytes(self) -> int:
        """Its size."""

    @property
    def executable(self) -> bool:
        """Whether it is a program."""


class Listing(Protocol):
    """What the store needs to know of a bundle (``edge.bundle.Manifest`` has it)."""

    @property
    def files(self) -> Sequence[ListedFile]:
        """Every file besides the manifest."""


class Store:
    """Blobs, uploads and bundles under ``root``.

    Args:
        root: the folder; created if its parent is there.
        budget: bytes that blobs and uploads may take together.

    Raises:
        StorageError: from any method: the disk refuses; NoSpace where it is full.
    """

    def __init__(self, root: Path, budget: int) -> None:
        self.root = root
        self._budget = budget
        self._lock = threading.RLock()
        self._wanted: set[str] = set()  # asked about or sent in this session: not to be thrown out for space
        durable.make_folder(root)
        for name in ("blobs", "staging", "bundles"):
            durable.make_folder(root / name)
        for left in (*root.glob(".*.new"), *(root / "blobs").glob(".*.new")):
            left.unlink()
        for left in (root / "bundles").glob(".*.new"):
            shutil.rmtree(left)

    # Blobs and uploads

    def has(self, digest: str) -> bool:
        """Whether the blob is here, complete; it was verified when it came, and is again before it is used."""
        with self._lock:
            self._wanted.add(digest)
            return self.blob(digest).is_file()

    def blob(self, digest: str) -> Path:
        """Where a blob lies or would lie."""
        return self.root / "blobs" / _checked(digest)

    def free(self) -> int:
        """Bytes that uploads may still take."""
        with self._lock:
            disk = shutil.disk_usage(self.root).free - _RESERVE
            return max(0, min(self._budget - self._used(), disk))

    def staged_bytes(self, digest: str) -> int:
        """Bytes of an upload that are here from an earlier try."""
        part = self._part(digest)
        return part.stat().st_size if part.exists() else 0

    def read_staged(self, digest: str) -> Iterator[bytes]:
        """The staged bytes in pieces, from the start."""
        if self.staged_bytes(digest):
            yield from _pieces(self._part(digest))

    def reserve(self, digest: str, size: int) -> None:
        """Make sure that an upload of ``size`` bytes fits, throwing out what nobody needs.

        Raises:
            NoSpace: it does not fit even so.
        """
        with self._lock:
            self._wanted.add(digest)
            needed = size - self.staged_bytes(digest)
            if needed > self.free():
                self._make_room(needed)
            if needed > self.free():
                raise NoSpace(
                    f"{needed} bytes do not fit, {self.free()} are free of a budget of {self._budget}",
                    where=f"blob {digest[:12]}",
                    mend="use a smaller model, or raise storage.budget_bytes in the board's file",
                )

    def append(self, digest: str, offset: int, data: bytes) -> None:
        """Add bytes to an upload. They outlive the supervisor; a power cut may take the last MiB.

        Raises:
            StorageError: ``offset`` is not where the upload stands.
        """
        with self._lock, _disk_errors(f"blob {digest[:12]}"):
            staged = self.staged_bytes(digest)
            if offset != staged:
                raise StorageError(
                    f"bytes from {offset} do not continue at {staged}",
                    where=f"blob {digest[:12]}",
                    mend="open the upload again to learn where to continue",
                )
            is_due = (staged + len(data)) // _SYNC_EVERY > staged // _SYNC_EVERY
            durable.append(self._part(digest), data, sync=is_due)

    def commit(self, digest: str) -> None:
        """Make a whole, verified upload a blob; on disk when it returns."""
        with self._lock, _disk_errors(f"blob {digest[:12]}"):
            part = self._part(digest)
            durable.append(part, b"")
            size = part.stat().st_size
            durable.move(part, self.blob(digest))
        log.info("blob %s stored, %d bytes", digest[:12], size)

    def discard(self, digest: str) -> None:
        """Throw the staged bytes of an upload away."""
        with self._lock:
            durable.remove(self._part(digest))
        log.warning("upload %s thrown away", digest[:12])

    # Bundles

    def folder(self, bundle_id: str) -> Path:
        """Where a bundle lies or would lie."""
        return self.root / "bundles" / _checked(bundle_id)

    def bundles(self) -> list[str]:
        """The ids of the bundles here, in no order."""
        return [path.name for path in (self.root / "bundles").iterdir() if _DIGEST.fullmatch(path.name)]

    def verify(self, bundle_id: str, manifest: Listing, progress: Callable[[int, int], None] | None = None) -> None:
        """Hash a bundle's blobs again, all of them.

        Raises:
            BundleRejected: a blob is missing or has another size than the manifest says.
            HashMismatch: a blob changed on the disk; it is thrown out, so that the host sends it again.
        """
        missing = [file.name for file in manifest.files if not self.blob(file.sha256).is_file()]
        if missing:
            raise BundleRejected(
                f"{', '.join(missing)} missing", where=f"bundle {bundle_id[:12]}", mend="upload it, then activate"
            )
        wanted = [(MANIFEST, bundle_id, None), *((file.name, file.sha256, file.bytes) for file in manifest.files)]
        for count, (name, digest, size) in enumerate(wanted):
            path = self.blob(digest)
            where = f"bundle {bundle_id[:12]}, {name}"
            if size is not None and path.stat().st_size != size:
                raise BundleRejected(
                    f"{path.stat().st_size} bytes, the manifest says {size}", where=where, mend="build the bundle anew"
                )
            found = hash_file(path)
            if found != digest:
                self.throw_out(digest)
                raise HashMismatch(f"its SHA-256 is {found[:12]}...", where=where, mend="deploy the bundle again")
            if progress is not None:
                progress(count + 1, len(wanted))

    def install(self, bundle_id: str, manifest: Listing) -> Path:
        """Link a verified bundle's blobs together under their names.

        Returns:
            The bundle's folder.
        """
        target = self.folder(bundle_id)
        if self._is_whole(target, manifest):
            return target
        with self._lock, _disk_errors(f"bundle {bundle_id[:12]}"):
            building = target.with_name(f".{bundle_id}.new")
            if building.exists():
                shutil.rmtree(building)
            building.mkdir()
            os.link(self.blob(bundle_id), building / MANIFEST)
            for file in manifest.files:
                os.link(self.blob(file.sha256), building / file.name)
                if file.executable:
                    (building / file.name).chmod(0o755)
            durable.sync_folder(building)
            if target.exists():
                shutil.rmtree(target)  # the same content by name; its links may point at a blob since replaced
            durable.move(building, target)
        return target

    def throw_out(self, digest: str) -> None:
        """Delete a blob that is not what its name says."""
        log.error("blob %s is damaged and thrown out", digest[:12])
        with self._lock:
            durable.remove(self.blob(digest))

    def active(self) -> list[str]:
        """The active bundle's id, then the one to fall back to; empty before the first activation."""
        path = self.root / "active"
        if not path.exists():
            return []
        ids = path.read_text(encoding="ascii", errors="replace").split()
        return [each for each in ids if _DIGEST.fullmatch(each)]

    def set_active(self, bundle_id: str) -> None:
        """Switch, atomically. The bundle that was active stays to fall back to."""
        with self._lock, _disk_errors("active"):
            kept = [bundle_id, *(each for each in self.active() if each != bundle_id)][:KEPT_BUNDLES]
            durable.write_file(self.root / "active", "".join(f"{each}\n" for each in kept).encode())
        log.info("bundle %s is active", bundle_id[:12])

    def fall_back(self, bundle_id: str) -> None:
        """Make an older bundle active and forget the newer ones; for the boot that finds those damaged."""
        with self._lock, _disk_errors("active"):
            ids = self.active()
            kept = ids[ids.index(bundle_id) :] if bundle_id in ids else [bundle_id]
            durable.write_file(self.root / "active", "".join(f"{each}\n" for each in kept).encode())
        log.warning("fell back to bundle %s", bundle_id[:12])

    def prune(self, manifests: Iterable[Listing]) -> None:
        """Keep the active bundle, the one before it, and the blobs of ``manifests``, which are theirs."""
        with self._lock:
            kept = self.active()
            for bundle_id in self.bundles():
                if bundle_id not in kept:
                    shutil.rmtree(self.folder(bundle_id))
                    log.info("bundle %s removed", bundle_id[:12])
            needed = {*kept, *(file.sha256 for manifest in manifests for file in manifest.files)}
            for path in (self.root / "blobs").iterdir():
                if path.name not in needed:
                    durable.remove(path)
            self._wanted.clear()

    # Inside

    def _part(self, digest: str) -> Path:
        return self.root / "staging" / f"{_checked(digest)}.part"

    def _is_whole(self, folder: Path, manifest: Listing) -> bool:
        """Whether every name in a bundle's folder is a link to its verified blob."""
        digests = {MANIFEST: folder.name, **{file.name: file.sha256 for file in manifest.files}}
        return all(
            (folder / name).exists() and (folder / name).samefile(self.blob(digest)) for name, digest in digests.items()
        )

    def _used(self) -> int:
        return sum(path.stat().st_size for name in ("blobs", "staging") for path in (self.root / name).iterdir())

    def _make_room(self, needed: int) -> None:
        """Throw out what no bundle and no upload of this session needs, until ``needed`` bytes are free."""
        stale = [path for path in (self.root / "staging").iterdir() if path.stem not in self._wanted]
        loose = [
            path
            for path in (self.root / "blobs").iterdir()
            if path.stat().st_nlink == 1 and path.name not in self._wanted
        ]
        for path in (*stale, *loose):
            if self.free() >= needed:
                return
            log.info("%s removed to make room", path.name[:12])
            durable.remove(path)


class _disk_errors:  # noqa: N801  reads as the statement it is
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


def hash_file(path: Path) -> str:
    """SHA-256 of a file, hex."""
    digest = hashlib.sha256()
    for piece in _pieces(path):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _checked(digest: str) -> str:
    """Digests become file names: nothing else may."""
    if not _DIGEST.fullmatch(digest):
        raise StorageError(f"{digest[:80]!r} is not a SHA-256", mend="send 64 lower-case hex digits")
    return digest
