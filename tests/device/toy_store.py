"""Small bundles for tests of the store, and what a host and an activation do with them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from edge.device.disk import Disk
from edge.device.standing import StandingFile, Trust
from edge.device.store import Store

MIB = 2**20


@dataclass(frozen=True)
class File:
    name: str
    sha256: str
    bytes: int
    executable: bool = False


@dataclass(frozen=True)
class Bundle:
    """A toy bundle: blobs by digest, and the listing that the store is given."""

    bundle_id: str
    blobs: dict[str, bytes]
    files: tuple[File, ...]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def bundle(*contents: bytes) -> Bundle:
    files = tuple(File(f"file-{n}", sha(data), len(data), executable=n == 0) for n, data in enumerate(contents))
    manifest = json.dumps([file.sha256 for file in files]).encode()
    return Bundle(sha(manifest), {sha(manifest): manifest, **{sha(data): data for data in contents}}, files)


OLD = bundle(b"engine one", b"program one", b"golden")
NEW = bundle(b"engine one", b"program two", b"golden")
THIRD = bundle(b"engine three", b"program three", b"golden three")
BUNDLES = {each.bundle_id: each for each in (OLD, NEW, THIRD)}


def upload(store: Store, data: bytes, piece: int = 4) -> str:
    """What a receiver does: the list first, then bytes in their places, then the whole is committed."""
    digest, blobs = sha(data), store.blobs
    if not blobs.has(digest):
        blobs.reserve(digest, len(data) + 34)
        blobs.append_index(digest, 0, b"list of " + data[:4])
        for offset in range(0, len(data), piece):
            if blobs.read(digest, offset, piece) != data[offset : offset + piece]:
                blobs.write(digest, offset, data[offset : offset + piece])
        blobs.commit(digest)
    return digest


class Node:
    """A device's storage, started on a disk: what a supervisor opens, and its boot."""

    def __init__(self, disk: Disk, budget: int = MIB) -> None:
        self.store = Store(disk, budget)
        self.standing = StandingFile(disk)
        self.active = self._boot()

    def _boot(self) -> str | None:
        now = self.standing.now
        for bundle_id in now.ids:
            if bundle_id == now.ids[0] and now.trust is Trust.TRYING and len(now.ids) > 1:
                continue
            self.store.verify(bundle_id, BUNDLES[bundle_id])
            self.store.install(bundle_id, BUNDLES[bundle_id], self.store.release(bundle_id))
            self.standing.save(now.fallen_back(bundle_id))
            return bundle_id
        return None

    def deploy(self, new: Bundle, release: bytes = b"") -> None:
        """What a host and an activation do."""
        for data in new.blobs.values():
            upload(self.store, data)
        self.store.verify(new.bundle_id, new)
        self.store.install(new.bundle_id, new, release)
        version = self.standing.now.version + 1
        self.standing.save(self.standing.now.activated(new.bundle_id, version, 0))
        self.active = new.bundle_id
        self.store.keep({each: BUNDLES[each] for each in self.standing.now.ids})

    def mark(self, trust: Trust) -> None:
        self.standing.save(self.standing.now.marked(trust))

    def check(self) -> None:
        """The active bundle can be run: every file is there, whole, and programs may be run."""
        assert self.active is not None
        bundle = BUNDLES[self.active]
        self.store.verify(self.active, bundle)
        for file in bundle.files:
            assert self.store.file(self.active, file.name) == bundle.blobs[file.sha256]
        assert sha(self.store.file(self.active, "manifest.json")) == self.active
