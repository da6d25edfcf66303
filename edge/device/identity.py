"""Who this device is across restarts, and the lock that keeps a second supervisor out of its folder."""

from __future__ import annotations

import fcntl
import os
import uuid
from typing import TYPE_CHECKING

from edge.device import durable
from edge.device.disk import FolderDisk
from edge.device.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path


_FILE = "device_id"


class Identity:
    """``device_id`` is made once and kept in the folder; ``boot_id`` is new each time.

    Args:
        root: the device's folder; made if its parent is there.

    Raises:
        StorageError: another supervisor uses the folder, or it cannot be used at all.
    """

    def __init__(self, root: Path) -> None:
        try:
            self._claim(root)
        except OSError as error:
            raise StorageError(
                f"the device's folder cannot be used: {error.strerror}", where=str(root), mend="choose another --root"
            ) from error

    def _claim(self, root: Path) -> None:
        if not root.is_dir():
            durable.make_folder(FolderDisk(root.parent), root.name)
        disk = FolderDisk(root)
        self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise StorageError(
                "another supervisor uses this folder", where=str(root), mend="stop it, or choose another --root"
            ) from None
        if disk.size(_FILE) is None:
            durable.write_new(disk, _FILE, f"{uuid.uuid4()}\n".encode())
        self.device_id = disk.read(_FILE).decode("ascii", "replace").strip()
        self.boot_id = str(uuid.uuid4())

    def release(self) -> None:
        """Let another supervisor in."""
        os.close(self._lock)
