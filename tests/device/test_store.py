"""The store: uploads in their places, damage, budgets, bundles; against the real file system and the one in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.device import blobs as module
from edge.device import durable
from edge.device.blobs import Blobs
from edge.device.disk import Disk, FolderDisk
from edge.device.errors import BundleRejected, HashMismatch, NoSpace, StorageError
from edge.device.store import Store, bundle_folder
from firmware_bridge.testing.disk import MemoryDisk

from .toy_store import BUNDLES, MIB, NEW, OLD, THIRD, Node, sha, upload


@pytest.fixture(params=["memory", "folder"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return MemoryDisk() if request.param == "memory" else FolderDisk(tmp_path)


def test_an_upload_goes_on_after_a_restart(disk: Disk) -> None:
    data, digest = b"0123456789", sha(b"0123456789")
    blobs = Blobs(disk, MIB)
    blobs.reserve(digest, 15)
    assert blobs.read_index(digest) == b""
    blobs.append_index(digest, 0, b"an older")
    blobs.append_index(digest, 0, b"li")
    blobs.append_index(digest, 2, b"st")
    blobs.write(digest, 4, data[4:])  # with a hole
    blobs = Blobs(disk, MIB)
    assert blobs.read_index(digest) == b"list"
    assert blobs.read(digest, 4, 100) == data[4:]
    assert not blobs.has(digest)
    blobs.write(digest, 0, data[:4])
    blobs.commit(digest)
    blobs = Blobs(disk, MIB)
    assert blobs.has(digest)
    assert blobs.blobs() == [digest]
    assert blobs.read_blob(digest) == data
    assert blobs.read_blob(digest, 2, 3) == data[2:5]
    assert blobs.blob_index(digest) == b"list"
    assert blobs.hash(digest) == digest
    assert blobs.read(digest, 0, 10) == b""
    assert disk.names("staging") == []


def test_uploads_are_synced_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SYNC_EVERY", 100)
    disk = MemoryDisk()
    blobs = Blobs(disk, MIB)
    blobs.append_index("a" * 64, 0, b"list")
    synced: list[str] = []
    monkeypatch.setattr(disk, "sync", synced.append)
    for n in range(5):
        blobs.write("a" * 64, 40 * n, bytes(40))
    assert synced == [f"staging/{'a' * 64}.part", f"staging/{'a' * 64}.index", "staging"]


def test_a_discarded_upload_leaves_nothing(disk: Disk) -> None:
    blobs = Blobs(disk, MIB)
    blobs.append_index("a" * 64, 0, b"list")
    blobs.write("a" * 64, 0, b"data")
    blobs.discard("a" * 64)
    blobs.discard("b" * 64)
    assert disk.names("staging") == []
    assert blobs.free() == MIB


@pytest.mark.parametrize("digest", ["../../etc/passwd", "A" * 64, "a" * 63, "", "a" * 64 + "/x"])
def test_only_digests_become_file_names(disk: Disk, digest: str) -> None:
    store = Store(disk, MIB)
    for use in (bundle_folder, store.manifest, store.blobs.has, store.blobs.read_index):
        with pytest.raises(StorageError, match="not a SHA-256"):
            use(digest)
    with pytest.raises(StorageError, match="not a SHA-256"):
        store.blobs.write(digest, 0, b"x")


def test_the_budget_is_kept_and_told(disk: Disk) -> None:
    store = Store(disk, 100)
    upload(store, b"x" * 48)
    assert store.blobs.free() == 40  # the list has 12
    with pytest.raises(NoSpace, match=r"50 bytes do not fit, 40 are free of a budget of 100"):
        store.blobs.reserve("a" * 64, 50)
    store.blobs.reserve("a" * 64, 40)


def test_room_is_made_from_what_nobody_needs(disk: Disk) -> None:
    Node(disk, 600).deploy(OLD)
    store = Store(disk, 600)
    loose = upload(store, b"x" * 100)
    store.blobs.write("a" * 64, 0, b"y" * 100)
    store = Store(disk, 600)  # a later session, which wants none of them
    free = store.blobs.free()
    store.blobs.reserve("b" * 64, free + 50)
    assert store.blobs.read("a" * 64, 0, 1) == b""
    assert loose in store.blobs.blobs()  # there was room enough without it
    store.blobs.reserve("b" * 64, free + 150)
    assert not store.blobs.has(loose)
    assert all(store.blobs.has(digest) for digest in OLD.blobs)


def test_room_is_not_made_from_what_this_session_wants(disk: Disk) -> None:
    first = upload(Store(disk, 150), b"x" * 100)
    store = Store(disk, 150)
    assert store.blobs.has(first)
    store.blobs.write("a" * 64, 0, b"y" * 10)
    with pytest.raises(NoSpace):
        store.blobs.reserve("b" * 64, 100)
    assert store.blobs.has(first)


def test_a_full_disk_is_no_space_and_a_broken_one_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryDisk(capacity=module._RESERVE + 100)
    blobs = Blobs(disk, MIB)
    assert blobs.free() == 100
    with pytest.raises(NoSpace, match="the disk refuses: No space left"):
        blobs.write("a" * 64, 0, bytes(module._RESERVE + 101))

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(disk, "write", broken)
    with pytest.raises(StorageError, match="the disk refuses: Input/output error") as caught:
        blobs.append_index("a" * 64, 0, b"x")
    assert not isinstance(caught.value, NoSpace)


def test_a_bundle_has_its_files_under_their_names(disk: Disk) -> None:
    node = Node(disk)
    node.deploy(OLD, b"signed")
    folder = bundle_folder(OLD.bundle_id)
    assert disk.names(folder) == [".release", "file-0", "file-1", "file-2", "manifest.json"]
    assert disk.is_executable(f"{folder}/file-0")
    assert not disk.is_executable(f"{folder}/file-1")
    assert node.store.release(OLD.bundle_id) == b"signed"
    assert node.store.release(NEW.bundle_id) == b""
    assert node.store.manifest(OLD.bundle_id) == OLD.blobs[OLD.bundle_id]
    assert node.store.manifest(NEW.bundle_id) is None
    node.check()


def test_the_release_of_an_installed_bundle_is_replaced(disk: Disk) -> None:
    node = Node(disk)
    for release in (b"", b"first", b"second", b"second"):
        node.deploy(OLD, release)
        assert node.store.release(OLD.bundle_id) == release
        node.check()


def test_two_bundles_stay_and_what_is_just_sent(disk: Disk) -> None:
    node = Node(disk)
    node.deploy(OLD)
    node.deploy(NEW)
    fresh = upload(node.store, b"the next bundle's")
    node.deploy(THIRD)
    assert node.standing.now.ids == [THIRD.bundle_id, NEW.bundle_id]
    assert set(node.store.bundles()) == {THIRD.bundle_id, NEW.bundle_id}
    assert node.store.blobs.has(fresh)
    assert not node.store.blobs.has(sha(b"program one"))
    assert node.store.blobs.blob_index(sha(b"program one")) == b""
    assert node.store.blobs.has(sha(b"engine one"))
    node.store.keep({THIRD.bundle_id: THIRD, NEW.bundle_id: None})  # its manifest is damaged
    node.store.keep({THIRD.bundle_id: THIRD, NEW.bundle_id: None})
    assert not node.store.blobs.has(sha(b"program two"))


def test_a_flipped_byte_is_found_thrown_out_and_mended_by_sending_it_again(disk: Disk) -> None:
    node = Node(disk)
    node.deploy(OLD)
    disk.write(f"blobs/{sha(b'program one')}", 9, b"0")
    with pytest.raises(HashMismatch, match=r"file-1: its SHA-256 is"):
        node.store.verify(OLD.bundle_id, OLD)
    assert not node.store.blobs.has(sha(b"program one"))
    node.deploy(OLD)
    node.check()


def test_a_bundle_with_a_missing_or_short_file_is_rejected(disk: Disk) -> None:
    store = Store(disk, MIB)
    for data in OLD.blobs.values():
        upload(store, data)
    store.blobs.throw_out(sha(b"golden"))
    with pytest.raises(BundleRejected, match="file-2 missing"):
        store.verify(OLD.bundle_id, OLD)
    disk.write(f"blobs/{sha(b'golden')}", 0, b"gold")
    with pytest.raises(BundleRejected, match="4 bytes, the manifest says 6"):
        store.verify(OLD.bundle_id, OLD)


def test_verifying_tells_how_far_it_is(disk: Disk) -> None:
    node = Node(disk)
    node.deploy(OLD)
    told: list[tuple[int, int]] = []
    node.store.verify(OLD.bundle_id, OLD, lambda *at: told.append(at))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_what_a_power_cut_left_half_made_is_removed_at_the_start(disk: Disk) -> None:
    Node(disk).deploy(OLD)
    disk.make_folder("bundles/.half.new")
    disk.write("bundles/.half.new/file", 0, b"x")
    disk.write("blobs/.half.new", 0, b"x")
    disk.write("indexes/" + "e" * 64, 0, b"of no blob")
    node = Node(disk)
    assert disk.names("bundles") == [OLD.bundle_id]
    assert sorted(disk.names("blobs")) == sorted(OLD.blobs)
    assert sorted(disk.names("indexes")) == sorted(OLD.blobs)
    assert node.active == OLD.bundle_id


def test_a_folder_left_by_an_activation_that_failed_does_not_stand_in_the_way(disk: Disk) -> None:
    node = Node(disk)
    disk.make_folder(f"bundles/.{OLD.bundle_id}.new")
    disk.write(f"bundles/.{OLD.bundle_id}.new/file-0", 0, b"x")
    node.deploy(OLD)
    node.check()
    assert set(BUNDLES) >= set(disk.names("bundles"))


def test_no_more_room_is_made_than_is_needed(disk: Disk) -> None:
    blobs = Blobs(disk, 300)
    for digest in ("a" * 64, "b" * 64):
        blobs.write(digest, 0, bytes(100))
    blobs = Blobs(disk, 300)
    blobs.reserve("c" * 64, 150)
    assert disk.names("staging") == [f"{'b' * 64}.part"]


def test_a_file_is_written_over_what_a_power_cut_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / ".name.new").write_bytes(b"half")
    durable.write_file(tmp_path / "name", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["name"]
    assert (tmp_path / "name").read_bytes() == b"whole"
