"""Writes that a power cut cannot tear: data first, then the name, then the folder that holds the name.

Linux promises that a rename is atomic, and that what ``fsync`` returned for is on the disk; nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.device.disk import FolderDisk

if TYPE_CHECKING:
    from pathlib import Path

    from edge.device.disk import Disk

NEW = ".new"
"""Ends the name of what is being made; whoever finds such a name at the start removes it."""


def folder_of(name: str) -> str:
    """The folder that holds a name; "" for the disk's own."""
    return name.rpartition("/")[0]


def beside(name: str) -> str:
    """Where something is made before it gets its name."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/.{last}{NEW}" if folder else f".{last}{NEW}"


def make_folder(disk: Disk, name: str) -> None:
    """Make a folder durably if it is not there, its parent being there."""
    if name.rpartition("/")[2] not in disk.names(folder_of(name)):
        disk.make_folder(name)
        disk.sync(folder_of(name))


def write_new(disk: Disk, name: str, data: bytes) -> None:
    """Put ``data`` under ``name``, durably: after a power cut there is the old content or the new, never a mixture."""
    new = beside(name)
    if disk.size(new) is not None:
        disk.remove(new)
    disk.write(new, 0, data)
    disk.sync(new)
    move(disk, new, name)


def move(disk: Disk, source: str, target: str) -> None:
    """Rename a file or folder that is itself durable already."""
    disk.rename(source, target)
    disk.sync(folder_of(target))
    if folder_of(source) != folder_of(target):
        disk.sync(folder_of(source))


def append(disk: Disk, name: str, data: bytes) -> None:
    """Add ``data`` to the end of a file, durably, making the file where there is none."""
    size = disk.size(name)
    disk.write(name, size or 0, data)
    disk.sync(name)
    if size is None:
        disk.sync(folder_of(name))


def remove(disk: Disk, name: str) -> None:
    """Delete a file if it is there; durable at the latest with the next ``sync`` of its folder."""
    if disk.size(name) is not None:
        disk.remove(name)


def remove_tree(disk: Disk, folder: str) -> None:
    """Delete a folder and the files in it."""
    for name in disk.names(folder):
        disk.remove(f"{folder}/{name}")
    disk.remove_folder(folder)


def remove_unfinished(disk: Disk, folder: str) -> None:
    """Delete what a power cut left half made in ``folder``."""
    for name in disk.names(folder):
        if name.startswith(".") and name.endswith(NEW):
            remove(disk, f"{folder}/{name}" if folder else name)


def write_file(path: Path, data: bytes) -> None:
    """``write_new`` by path, for whoever has no disk in hand."""
    write_new(FolderDisk(path.parent), path.name, data)
