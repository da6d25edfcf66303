"""The store against a real folder: resumed uploads, damage, budgets, and a power cut at every single write."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.device.errors import BundleRejected, HashMismatch, NoSpace, StorageError
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
BUNDLES = {each.bundle_id: each for each in (OLD, NEW)}


def upload(store: Store, data: bytes, piece: int = 4) -> str:
    digest = sha(data)
    if not store.has(digest):
        store.reserve(digest, len(data))
        held = b"".join(store.read_staged(digest))
        if not data.startswith(held):
            store.discard(digest)
            held = b""
        for offset in range(len(held), len(data), piece):
            store.append(digest, offset, data[offset : offset + piece])
        store.commit(digest)
    return digest


def deploy(store: Store, new: Bundle) -> None:
    """What a host and an activation do to the store."""
    for data in new.blobs.values():
        upload(store, data)
    store.verify(new.bundle_id, new)
    store.install(new.bundle_id, new)
    store.set_active(new.bundle_id)
    store.prune(BUNDLES[each] for each in store.active())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_upload_goes_on_where_it_stopped(tmp_path: Path) -> None:
    data, digest = b"0123456789", sha(b"0123456789")
    store = Store(tmp_path / "root", MIB)
    store.reserve(digest, 10)
    store.append(digest, 0, data[:4])
    store = Store(tmp_path / "root", MIB)
    assert store.staged_bytes(digest) == 4
    assert b"".join(store.read_staged(digest)) == data[:4]
    assert not store.has(digest)
    store.append(digest, 4, data[4:])
    store.commit(digest)
    assert store.has(digest)
    assert store.blob(digest).read_bytes() == data
    assert store.staged_bytes(digest) == 0
    assert not names(tmp_path / "root" / "staging")


@pytest.mark.parametrize("offset", [0, 3, 5])
def test_bytes_that_do_not_continue_are_refused(tmp_path: Path, offset: int) -> None:
    store = Store(tmp_path / "root", MIB)
    store.append("a" * 64, 0, b"0123")
    with pytest.raises(StorageError, match="do not continue at 4"):
        store.append("a" * 64, offset, b"45")


def test_an_empty_blob(tmp_path: Path) -> None:
    store = Store(tmp_path / "root", MIB)
    assert store.has(upload(store, b""))


@pytest.mark.parametrize("digest", ["../../etc/passwd", "A" * 64, "a" * 63, "", "a" * 64 + "/x"])
def test_only_digests_become_file_names(tmp_path: Path, digest: str) -> None:
    store = Store(tmp_path / "root", MIB)
    for use in (store.blob, store.folder, store.staged_bytes, store.has):
        with pytest.raises(StorageError, match="not a SHA-256"):
            use(digest)


def test_the_budget_is_kept_and_told(tmp_path: Path) -> None:
    store = Store(tmp_path / "root", 100)
    upload(store, b"x" * 60)
    assert store.free() == 40
    with pytest.raises(NoSpace, match=r"50 bytes do not fit, 40 are free of a budget of 100"):
        store.reserve("a" * 64, 50)
    store.reserve("a" * 64, 40)


def test_room_is_made_from_what_nobody_needs(tmp_path: Path) -> None:
    store = Store(tmp_path / "root", 600)
    deploy(store, OLD)
    loose = upload(store, b"x" * 100)
    store.append("a" * 64, 0, b"y" * 100)
    store = Store(tmp_path / "root", 600)  # a later session, which wants neither
    store.reserve("b" * 64, 300)
    assert store.staged_bytes("a" * 64) == 0
    assert not store.has(loose)
    assert all(store.has(digest) for digest in OLD.blobs)


def test_room_is_not_made_from_what_this_session_wants(tmp_path: Path) -> None:
    store = Store(tmp_path / "root", 150)
    first = upload(store, b"x" * 100)
    store = Store(tmp_path / "root", 150)
    assert store.has(first)
    with pytest.raises(NoSpace):
        store.reserve("b" * 64, 100)
    assert store.has(first)


def test_a_bundle_has_its_files_under_their_names(tmp_path: Path) -> None:
    store = Store(tmp_path / "root", MIB)
    deploy(store, OLD)
    folder = store.folder(OLD.bundle_id)
    assert names(folder) == ["file-0", "file-1", "file-2", "manifest.json"]
    assert (folder / "file-1").read_bytes() == b"program one"
    assert os.access(folder / "file-0", os.X_OK)
    assert not os.access(folder / "file-1", os.X_OK)
    assert store.active() == [OLD.bundle_id]


def test_the_two_newest_bundles_stay(tmp_path: Path) -> None:
    third = bundle(b"engine three", b"program three", b"golden three")
    BUNDLES[third.bundle_id] = third
    store = Store(tmp_path / "root", MIB)
    for each in (OLD, NEW, NEW, third):
        deploy(store, each)
    assert store.active() == [third.bundle_id, NEW.bundle_id]
    assert set(store.bundles()) == {third.bundle_id, NEW.bundle_id}
    assert not store.has(sha(b"program one"))
    assert store.has(sha(b"engine one"))


def test_a_flipped_byte_is_found_thrown_out_and_mended_by_sending_it_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "root", MIB)
    deploy(store, OLD)
    victim = store.blob(sha(b"program one"))
    victim.write_bytes(b"program 0ne")
    with pytest.raises(HashMismatch, match=r"file-1: its SHA-256 is"):
        store.verify(OLD.bundle_id, OLD)
    assert not store.has(sha(b"program one"))
    deploy(store, OLD)
    assert (store.folder(OLD.bundle_id) / "file-1").read_bytes() == b"program one"


def test_a_bundle_with_a_missing_or_short_file_is_rejected(tmp_path: Path) -> None:
    store = Store(tmp_path / "root", MIB)
    for data in OLD.blobs.values():
        upload(store, data)
    store.throw_out(sha(b"golden"))
    with pytest.raises(BundleRejected, match="file-2 missing"):
        store.verify(OLD.bundle_id, OLD)
    store.blob(sha(b"golden")).write_bytes(b"gold")
    with pytest.raises(BundleRejected, match="4 bytes, the manifest says 6"):
        store.verify(OLD.bundle_id, OLD)


def test_falling_back_forgets_the_newer_bundle(tmp_path: Path) -> None:
    store = Store(tmp_path / "root", MIB)
    deploy(store, OLD)
    deploy(store, NEW)
    store.fall_back(OLD.bundle_id)
    assert store.active() == [OLD.bundle_id]


def test_a_damaged_active_file_is_no_active_bundle(tmp_path: Path) -> None:
    store = Store(tmp_path / "root", MIB)
    (tmp_path / "root" / "active").write_bytes(b"\xff\x00 ../../x\n" + b"g" * 64)
    assert store.active() == []


class PowerCut(BaseException):
    """Not an Exception: nothing may catch it and tidy up."""


class Faults:
    """Counts the calls that change the disk and cuts the power in the n-th; a write is torn in the middle."""

    CALLS = ("write", "fsync", "rename", "link", "unlink", "mkdir", "rmdir", "ftruncate", "chmod")

    def __init__(self, patch: pytest.MonkeyPatch, cut_at: int | None) -> None:
        self.count = 0
        self._cut_at = cut_at
        for name in self.CALLS:
            patch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            self.count += 1
            if self._cut_at is not None and self.count >= self._cut_at:
                if name == "write" and self.count == self._cut_at:
                    data = bytes(args[1])  # type: ignore[arg-type]
                    real(args[0], data[: len(data) // 2])
                raise PowerCut
            return real(*args, **options)

        return call


def prepared(root: Path) -> None:
    deploy(Store(root, MIB), OLD)


def test_a_power_cut_at_any_write_leaves_a_bundle_that_runs(tmp_path: Path) -> None:
    prepared(tmp_path / "counted")
    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(patch, None)
        deploy(Store(tmp_path / "counted", MIB), NEW)
    assert faults.count > 15
    switched = 0
    for cut_at in range(1, faults.count + 1):
        root = tmp_path / f"cut-{cut_at}"
        prepared(root)
        with pytest.MonkeyPatch.context() as patch:
            Faults(patch, cut_at)
            with pytest.raises(PowerCut):
                deploy(Store(root, MIB), NEW)
        store = Store(root, MIB)
        active = store.active()[0]
        switched += active == NEW.bundle_id
        store.verify(active, BUNDLES[active])
        for name in names(store.folder(active)):
            assert (store.folder(active) / name).stat().st_size
        deploy(store, NEW)
        store.verify(NEW.bundle_id, NEW)
        assert store.active() == [NEW.bundle_id, OLD.bundle_id]
    assert 0 < switched < faults.count
