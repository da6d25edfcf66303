"""Snapshots of jobs under way, so that a device that restarts need not begin a long job anew.

    snapshots/<job id>.bin     a line about the steps that ran, then the engine's own snapshot

One a job, replaced atomically; damaged ones are as if they were not there.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.device import durable, records

if TYPE_CHECKING:
    from collections.abc import Collection

    from edge.device.disk import Disk

log = logging.getLogger(__name__)

_SUFFIX = ".bin"
_LEFT_FREE = 64 * 2**20  # bytes of the disk that snapshots leave to more important things


@dataclass(frozen=True)
class Snapshot:
    """A job's state between two steps.

    Attributes:
        totals: the statistics so far, as plain values.
        state: the engine's blob.
    """

    totals: Mapping[str, Any]
    state: bytes


class Snapshots:
    """The snapshots on a disk. Not durable before ``write`` returns; an OSError leaves the older one.

    Args:
        disk: the device's.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        durable.make_folder(disk, "snapshots")
        durable.remove_unfinished(disk, "snapshots")

    def write(self, job_id: str, snapshot: Snapshot) -> bool:
        """Keep a snapshot in place of the job's last one. Whether there was room for it."""
        if self._disk.free() < 2 * len(snapshot.state) + _LEFT_FREE:
            log.warning("job %s: no room for a snapshot of %d bytes", job_id, len(snapshot.state))
            return False
        digest = hashlib.sha256(snapshot.state).hexdigest()
        head = records.encode({"totals": dict(snapshot.totals), "sha256": digest})
        durable.write_new(self._disk, _name(job_id), head + snapshot.state)
        return True

    def read(self, job_id: str) -> Snapshot | None:
        """The job's snapshot, if there is a whole one."""
        if self._disk.size(_name(job_id)) is None:
            return None
        head, newline, state = self._disk.read(_name(job_id)).partition(b"\n")
        record = records.decode(head + newline)
        if record is None or hashlib.sha256(state).hexdigest() != record["sha256"]:
            log.warning("job %s: its snapshot is damaged", job_id)
            return None
        return Snapshot(record["totals"], state)

    def drop(self, job_id: str) -> None:
        """The job has ended."""
        durable.remove(self._disk, _name(job_id))

    def keep(self, job_ids: Collection[str]) -> None:
        """Drop the snapshots of all other jobs."""
        for name in self._disk.names("snapshots"):
            if name.removesuffix(_SUFFIX) not in job_ids:
                self._disk.remove(f"snapshots/{name}")


def _name(job_id: str) -> str:
    return f"snapshots/{job_id}{_SUFFIX}"
