"""Writes that a power cut cannot tear: data first, then the name, then the folder that holds the name.

Linux promises that a rename is atomic, and that what ``fsync`` returned for is on the disk; nothing more.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Create ``folder`` durably, its parent being there."""
    if not folder.is_dir():
        folder.mkdir()
        sync_folder(folder.parent)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte; ``os.write`` may stop early on a full disk or a signal."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_file(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``: after a power cut there is the old content or the new, never a mixture."""
    beside = path.with_name(f".{path.name}.new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        write_all(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    move(beside, path)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder that is itself durable already."""
    source.rename(target)
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)


def append(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Add ``data`` to the end of ``path`` and, unless told otherwise, make the file durable."""
    is_new = not path.exists()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        write_all(fd, data)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    if sync and is_new:
        sync_folder(path.parent)


def remove(path: Path) -> None:
    """Delete a file if it is there; durable at the latest with the next write in its folder."""
    path.unlink(missing_ok=True)


def cut(path: Path, length: int) -> None:
    """Shorten a file to ``length`` bytes."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.ftruncate(fd, length)
        os.fsync(fd)
    finally:
        os.close(fd)
