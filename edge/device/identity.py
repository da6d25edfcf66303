"""Who this device is across restarts, and the lock that keeps a second supervisor out of its folder."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.device import durable
from edge.device.disk import FolderDisk
from edge.device.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

    from edge.device.disk import Disk


_FILE = "device_id"


class Identity:
    """``device_id`` is made once and kept on the disk; ``boot_id`` is new each time.

    Args:
        disk: the device's.
        new_id: draws an id that nobody else has.

    Raises:
        OSError: the disk refuses.
    """

    def __init__(self, disk: Disk, new_id: Callable[[], uuid.UUID] = uuid.uuid4) -> None:
        if disk.size(_FILE) is None:
            durable.write_new(disk, _FILE, f"{new_id()}\n".encode())
        self.device_id = disk.read(_FILE).decode("ascii", "replace").strip()
        self.boot_id = str(new_id())


class FolderLock:
    """Keeps a device's folder for one supervisor.

    Args:
        root: the folder; made if its parent is there.

    Raises:
        StorageError: another supervisor uses the folder, or it cannot be used at all.
    """

    def __init__(self, root: Path) -> None:
        with folder_errors(root):
            self._claim(root)

    def _claim(self, root: Path) -> None:
        if not root.is_dir():
            durable.make_folder(FolderDisk(root.parent), root.name)
        self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise StorageError(
                "another supervisor uses this folder", where=str(root), mend="stop it, or choose another --root"
            ) from None

    def release(self) -> None:
        """Let another supervisor in."""
        os.close(self._lock)


class folder_errors:  # noqa: N801  reads as the statement it is
    """Turns an OSError inside into a StorageError that names the device's folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            what = f"the device's folder cannot be used: {error.strerror}"
            raise StorageError(what, where=str(self._root), mend="choose another --root") from error
