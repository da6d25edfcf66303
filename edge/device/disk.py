"""The one door to the disk: what the store and the journal ask of a file system, and the real one.

Names are relative, their parts joined by "/". Nothing is durable before ``sync`` returns: of a file, that is its
content; of a folder, the names in it. ``edge.device.durable`` builds from these what a power cut cannot tear, and
``firmware_bridge.testing.disk`` has a disk in memory that forgets what was not synced.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path


class Disk(Protocol):
    """A folder of a file system. Every method may raise OSError."""

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""

    def names(self, folder: str) -> list[str]:
        """What is in a folder, sorted."""

    def read(self, name: str, offset: int = 0, size: int = -1) -> bytes:
        """Bytes of a file from ``offset`` on, at most ``size`` (-1: all)."""

    def is_same(self, one: str, other: str) -> bool:
        """Whether both names are there and mean one file."""

    def links(self, name: str) -> int:
        """How many names a file has."""

    def is_executable(self, name: str) -> bool:
        """Whether a file may be run."""

    def free(self) -> int:
        """Bytes that the disk still takes."""

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Put bytes at ``offset`` of a file, which is made where there is none."""

    def cut(self, name: str, size: int) -> None:
        """Shorten a file."""

    def sync(self, name: str) -> None:
        """Make a file's content, or a folder's names, durable ("" is the disk's own folder)."""

    def rename(self, source: str, target: str) -> None:
        """Give a file or folder another name, atomically; a file of that name is replaced."""

    def link(self, source: str, target: str) -> None:
        """Give a file one more name."""

    def remove(self, name: str) -> None:
        """Take a name away; a file goes with its last one."""

    def allow_execution(self, name: str) -> None:
        """Let a file be run."""

    def make_folder(self, name: str) -> None:
        """Make a folder."""

    def remove_folder(self, name: str) -> None:
        """Remove an empty folder."""


class FolderDisk:
    """A ``Disk`` on a real folder.

    Args:
        root: the folder; names are below it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""
        try:
            return (self.root / name).stat().st_size
        except FileNotFoundError:
            return None

    def names(self, folder: str) -> list[str]:
        """What is in a folder, sorted."""
        return sorted(os.listdir(self.root / folder))  # noqa: PTH208  names are wanted, not paths

    def read(self, name: str, offset: int = 0, size: int = -1) -> bytes:
        """Bytes of a file from ``offset`` on."""
        with (self.root / name).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def is_same(self, one: str, other: str) -> bool:
        """Whether both names are there and mean one file."""
        try:
            return (self.root / one).samefile(self.root / other)
        except FileNotFoundError:
            return False

    def links(self, name: str) -> int:
        """How many names a file has."""
        return (self.root / name).stat().st_nlink

    def is_executable(self, name: str) -> bool:
        """Whether its owner may run it."""
        return bool((self.root / name).stat().st_mode & 0o100)

    def free(self) -> int:
        """Bytes that the disk still takes."""
        return shutil.disk_usage(self.root).free

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Put bytes at ``offset``; ``os.pwrite`` may stop early on a full disk or a signal."""
        fd = os.open(self.root / name, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            view = memoryview(data)
            while view:
                written = os.pwrite(fd, view, offset)
                view, offset = view[written:], offset + written
        finally:
            os.close(fd)

    def cut(self, name: str, size: int) -> None:
        """Shorten a file."""
        os.truncate(self.root / name, size)

    def sync(self, name: str) -> None:
        """``fsync`` of a file or folder."""
        fd = os.open(self.root / name, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, source: str, target: str) -> None:
        """Give a file or folder another name, atomically."""
        (self.root / source).rename(self.root / target)

    def link(self, source: str, target: str) -> None:
        """Give a file one more name."""
        os.link(self.root / source, self.root / target)

    def remove(self, name: str) -> None:
        """Take a name away."""
        (self.root / name).unlink()

    def allow_execution(self, name: str) -> None:
        """Let a file be run by all, and written by its owner."""
        (self.root / name).chmod(0o755)

    def make_folder(self, name: str) -> None:
        """Make a folder."""
        (self.root / name).mkdir()

    def remove_folder(self, name: str) -> None:
        """Remove an empty folder."""
        (self.root / name).rmdir()
