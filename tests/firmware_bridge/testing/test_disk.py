"""The disk in memory behaves as the real one does, until its power is cut; then it forgets as it says."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.device.disk import Disk, FolderDisk
from firmware_bridge.testing.disk import Loss, MemoryDisk, PowerCut


@pytest.fixture(params=["memory", "folder"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return MemoryDisk() if request.param == "memory" else FolderDisk(tmp_path)


def test_files(disk: Disk) -> None:
    assert disk.size("a") is None
    disk.write("a", 0, b"hello")
    disk.write("a", 7, b"world")
    assert disk.read("a") == b"hello\0\0world"
    assert (disk.read("a", 7), disk.read("a", 1, 4), disk.read("a", 99, 4)) == (b"world", b"ello", b"")
    disk.write("a", 1, b"u")
    disk.cut("a", 5)
    disk.sync("a")
    assert disk.read("a") == b"hullo"
    assert disk.size("a") == 5
    assert not disk.is_executable("a")
    disk.allow_execution("a")
    assert disk.is_executable("a")
    disk.remove("a")
    assert disk.size("a") is None


def test_names(disk: Disk) -> None:
    disk.make_folder("f")
    disk.make_folder("g")
    disk.sync("")
    assert disk.names("f") == []
    disk.write("f/b", 0, b"b")
    disk.write("f/a", 0, b"a")
    assert disk.names("f") == ["a", "b"]
    disk.link("f/a", "g/c")
    assert disk.links("f/a") == 2
    assert disk.is_same("f/a", "g/c")
    assert not disk.is_same("f/a", "f/b")
    assert not disk.is_same("f/a", "g/none")
    disk.rename("f/b", "g/c")  # replaces a link
    assert disk.links("f/a") == 1
    assert disk.read("g/c") == b"b"
    disk.rename("g", "h")
    assert disk.names("h") == ["c"]
    disk.remove("h/c")
    disk.remove_folder("h")
    assert disk.names("") == ["f"]
    assert disk.free() > 0


@pytest.mark.parametrize(
    "call",
    [
        lambda disk: disk.read("none"),
        lambda disk: disk.cut("none", 0),
        lambda disk: disk.sync("none"),
        lambda disk: disk.remove("none"),
        lambda disk: disk.rename("none", "x"),
        lambda disk: disk.link("none", "x"),
        lambda disk: disk.link("a", "f/a"),
        lambda disk: disk.links("none"),
        lambda disk: disk.names("none"),
        lambda disk: disk.make_folder("f"),
        lambda disk: disk.make_folder("none/f"),
        lambda disk: disk.remove_folder("f"),
        lambda disk: disk.write("f", 0, b"x"),
        lambda disk: disk.write("none/a", 0, b"x"),
        lambda disk: disk.rename("f", "full"),
    ],
)
def test_what_a_file_system_refuses(disk: Disk, call: Callable[[Disk], object]) -> None:
    for folder in ("f", "full"):
        disk.make_folder(folder)
        disk.write(f"{folder}/a", 0, b"a")
    disk.write("a", 0, b"a")
    with pytest.raises(OSError, match=r".+"):
        call(disk)


def test_a_full_disk() -> None:
    disk = MemoryDisk(capacity=10)
    disk.write("a", 0, b"12345678")
    disk.link("a", "b")
    disk.write("a", 0, b"abcdefgh")
    assert disk.free() == 2
    with pytest.raises(OSError, match="No space left"):
        disk.write("c", 0, b"123")


def unsynced(disk: MemoryDisk) -> None:
    disk.write("old", 0, b"old content")
    disk.sync("old")
    disk.make_folder("f")
    disk.sync("")
    disk.write("old", 0, b"new")
    disk.write("fresh", 0, b"fresh")
    disk.rename("old", "f/moved")


def test_a_killed_process_loses_nothing() -> None:
    disk = MemoryDisk()
    unsynced(disk)
    disk.cut_power()
    with pytest.raises(PowerCut):
        disk.names("")
    disk.restart(Loss.NOTHING)
    assert disk.names("") == ["f", "fresh"]
    assert disk.read("f/moved") == b"new content"


def test_what_was_not_synced_may_all_be_gone() -> None:
    disk = MemoryDisk()
    unsynced(disk)
    disk.restart(Loss.EVERYTHING)
    assert disk.names("") == ["f", "old"]
    assert disk.read("old") == b"old content"
    assert disk.names("f") == []


def test_anything_may_be_left_of_what_was_not_synced() -> None:
    seen = set()
    for seed in range(200):
        disk = MemoryDisk()
        unsynced(disk)
        disk.restart(Loss.ANYTHING, random.Random(seed))
        names = disk.names("") + [f"f/{each}" for each in disk.names("f")]
        contents = {each: disk.read(each) for each in names if each != "f"}
        assert set(contents.values()) <= {b"old content", b"new content", b"nld content", b"fresh", b"fr", b""}
        for each in contents:
            assert disk.links(each) == 1 + (set(names) >= {"old", "f/moved"} and each in {"old", "f/moved"})
        seen.add(tuple(contents.items()))
    assert {tuple(names for names, _ in each) for each in seen} >= {("old",), ("f/moved",), ("old", "f/moved"), ()}
    assert len(seen) > 15


def test_execution_is_allowed_for_good_when_the_file_is_synced() -> None:
    disk = MemoryDisk()
    disk.write("a", 0, b"a")
    disk.sync("a")
    disk.sync("")
    disk.allow_execution("a")
    disk.restart(Loss.EVERYTHING)
    assert not disk.is_executable("a")
    disk.allow_execution("a")
    disk.sync("a")
    disk.restart(Loss.EVERYTHING)
    assert disk.is_executable("a")


def test_the_power_goes_in_the_operation_named_and_a_write_is_torn() -> None:
    disk = MemoryDisk()
    disk.write("a", 0, b"12345678")
    disk.cut_at = disk.operations + 2
    disk.sync("a")
    with pytest.raises(PowerCut):
        disk.write("a", 0, b"abcdefgh")
    with pytest.raises(PowerCut):
        disk.size("a")
    disk.restart(Loss.NOTHING)
    assert disk.read("a") == b"abcd5678"
    for number, call in enumerate([lambda: disk.make_folder("f"), lambda: disk.remove("a"), lambda: disk.cut("a", 1)]):
        disk.cut_at = disk.operations + 1
        with pytest.raises(PowerCut):
            call()
        disk.restart(Loss.NOTHING)
        assert disk.read("a") == b"abcd5678", number
        assert disk.names("") == ["a"]
