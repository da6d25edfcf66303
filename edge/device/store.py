"""Bundles on the device's disk, so that a power cut at any moment leaves it with one that runs.

    bundles/<bundle id>/           hard links to blobs under the manifest's names, and manifest.json
    bundles/<bundle id>/.release   the signed statement that it came with

A folder enters ``bundles`` by rename, after everything in it is on the disk. A bundle's id is the digest of its
manifest. Which bundle is active stands elsewhere (``edge.device.standing``).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from edge.device import durable
from edge.device.blobs import DIGEST, Blobs, checked, disk_errors
from edge.device.blobs import name as blob_name
from edge.device.errors import BundleRejected, HashMismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edge.device.disk import Disk

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_RELEASE = ".release"  # no file of a bundle may begin with a dot


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
    """Blobs and the bundles made of them.

    Args:
        disk: where they lie.
        budget: bytes that blobs and uploads may take together.

    Raises:
        StorageError: from any method: the disk refuses; NoSpace where it is full.
    """

    def __init__(self, disk: Disk, budget: int) -> None:
        self._disk = disk
        self.blobs = Blobs(disk, budget)
        durable.make_folder(disk, "bundles")
        for left in disk.names("bundles"):
            if not DIGEST.fullmatch(left):
                durable.remove_tree(disk, f"bundles/{left}")

    def bundles(self) -> list[str]:
        """The ids of the bundles here."""
        return self._disk.names("bundles")

    def manifest(self, bundle_id: str) -> bytes | None:
        """The manifest's bytes; None where it was not uploaded."""
        return self.blobs.read_blob(bundle_id) if self.blobs.size(bundle_id) is not None else None

    def file(self, bundle_id: str, name: str) -> bytes:
        """The bytes of one of a bundle's files."""
        return self._disk.read(f"{bundle_folder(bundle_id)}/{name}")

    def release(self, bundle_id: str) -> bytes:
        """The statement that an installed bundle came with; empty where it came without."""
        path = f"{bundle_folder(bundle_id)}/{_RELEASE}"
        return self._disk.read(path) if self._disk.size(path) is not None else b""

    def verify(self, bundle_id: str, manifest: Listing, progress: Callable[[int, int], None] | None = None) -> None:
        """Hash a bundle's blobs again, all of them.

        Raises:
            BundleRejected: a blob is missing or has another size than the manifest says.
            HashMismatch: a blob changed on the disk; it is thrown out, so that the host sends it again.
        """
        missing = [file.name for file in manifest.files if self.blobs.size(file.sha256) is None]
        if missing:
            raise BundleRejected(
                f"{', '.join(missing)} missing", where=f"bundle {bundle_id[:12]}", mend="upload it, then activate"
            )
        wanted = [(MANIFEST, bundle_id, None), *((file.name, file.sha256, file.bytes) for file in manifest.files)]
        for count, (name, digest, size) in enumerate(wanted):
            where = f"bundle {bundle_id[:12]}, {name}"
            if size is not None and self.blobs.size(digest) != size:
                raise BundleRejected(
                    f"{self.blobs.size(digest)} bytes, the manifest says {size}",
                    where=where,
                    mend="build the bundle anew",
                )
            found = self.blobs.hash(digest)
            if found != digest:
                self.blobs.throw_out(digest)
                raise HashMismatch(f"its SHA-256 is {found[:12]}...", where=where, mend="deploy the bundle again")
            if progress is not None:
                progress(count + 1, len(wanted))

    def install(self, bundle_id: str, manifest: Listing, release: bytes) -> None:
        """Link a verified bundle's blobs together under their names; on disk when it returns."""
        target = bundle_folder(bundle_id)
        with disk_errors(f"bundle {bundle_id[:12]}"):
            if not self._is_whole(bundle_id, manifest):
                self._build(bundle_id, manifest, release)
            elif self.release(bundle_id) != release:
                durable.write_new(self._disk, f"{target}/{_RELEASE}", release)

    def keep(self, kept: Mapping[str, Listing | None]) -> None:
        """Throw out every bundle but these, and every blob that none of them names.

        Args:
            kept: ids with manifests; None for a manifest that is damaged: its blobs could not be used.
        """
        for bundle_id in self.bundles():
            if bundle_id not in kept:
                durable.remove_tree(self._disk, bundle_folder(bundle_id))
                log.info("bundle %s removed", bundle_id[:12])
        listings = [listing for listing in kept.values() if listing is not None]
        self.blobs.keep({*kept, *(file.sha256 for listing in listings for file in listing.files)})

    # Inside

    def _build(self, bundle_id: str, manifest: Listing, release: bytes) -> None:
        disk, target = self._disk, bundle_folder(bundle_id)
        building = durable.beside(target)
        if building.rpartition("/")[2] in disk.names("bundles"):
            durable.remove_tree(disk, building)
        disk.make_folder(building)
        for name, digest, is_executable in self._links(bundle_id, manifest):
            disk.link(blob_name(digest), f"{building}/{name}")
            if is_executable:
                disk.allow_execution(f"{building}/{name}")
                disk.sync(f"{building}/{name}")
        if release:
            disk.write(f"{building}/{_RELEASE}", 0, release)
            disk.sync(f"{building}/{_RELEASE}")
        disk.sync(building)
        if bundle_id in self.bundles():
            durable.remove_tree(disk, target)  # not whole: its links may point at a blob since replaced
        durable.move(disk, building, target)

    def _is_whole(self, bundle_id: str, manifest: Listing) -> bool:
        """Whether every name in a bundle's folder is a link to its blob, and programs may be run."""
        folder = bundle_folder(bundle_id)
        return all(
            self._disk.is_same(f"{folder}/{name}", blob_name(digest))
            and (not is_executable or self._disk.is_executable(blob_name(digest)))
            for name, digest, is_executable in self._links(bundle_id, manifest)
        )

    def _links(self, bundle_id: str, manifest: Listing) -> Iterator[tuple[str, str, bool]]:
        yield MANIFEST, bundle_id, False
        for file in manifest.files:
            yield file.name, file.sha256, file.executable


def bundle_folder(bundle_id: str) -> str:
    """The folder of an installed bundle, on the disk."""
    return f"bundles/{checked(bundle_id)}"
