"""Jobs that were under way when the device went down: which go on, from where, and which have failed."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from boards.errors import KitError
from edge.device.answers import words
from edge.device.journal import Outcome
from edge.device.requests import read_job, request_from
from firmware_bridge.wire.messages import FailureCode

if TYPE_CHECKING:
    from edge.bundle import Manifest
    from edge.device.job import Job
    from edge.device.journal import Journal, Unfinished
    from edge.device.snapshots import Snapshots
    from edge.device.surroundings import Clock

log = logging.getLogger(__name__)

MAX_STARTS = 3
"""A job that ran, each time, when the device went down so often is not tried again."""


@dataclass(frozen=True)
class Restarted:
    """A job that goes on, and how often it had begun before."""

    job: Job
    restarts: int


def recover(
    journal: Journal, snapshots: Snapshots, manifest: Manifest | None, bundle_id: str | None, clock: Clock
) -> list[Restarted]:
    """Decide over every job that has not ended; the outcome of those that cannot go on is in the journal.

    Args:
        journal: knows them.
        snapshots: may know where they stood.
        manifest: of the active bundle.
        bundle_id: its id.
        clock: deadlines are of it.

    Returns:
        The jobs to run, oldest first.
    """
    going_on = []
    for unfinished in journal.unfinished():
        job_id = unfinished.job_id
        failed, job = _look_at(unfinished, manifest, bundle_id, clock)
        if job is None:
            log.error("job %s cannot go on after the restart: %s", job_id, failed.message)
            journal.finish(job_id, failed)
            continue
        snapshot = snapshots.read(job_id)
        log.warning("job %s goes on after a restart, %s", job_id, "from a snapshot" if snapshot else "from its start")
        going_on.append(Restarted(replace(job, snapshot=snapshot), unfinished.starts))
    snapshots.keep({each.job.job_id for each in going_on})
    return going_on


def _look_at(
    unfinished: Unfinished, manifest: Manifest | None, bundle_id: str | None, clock: Clock
) -> tuple[Outcome, Job | None]:
    """Why a job cannot go on, or the job."""
    notes = unfinished.notes
    left = None if notes["deadline"] is None else notes["deadline"] - clock.unix()
    if unfinished.request is None:
        return _failure(FailureCode.INTERNAL, "the disk lost its request"), None
    if manifest is None or notes["bundle"] != bundle_id:
        now, then = str(bundle_id)[:12], str(notes["bundle"])[:12]
        what = f"the device runs another bundle since its restart: {now}, the job was accepted for {then}"
        return _failure(FailureCode.BUNDLE_CHANGED, what), None
    if unfinished.starts >= MAX_STARTS:
        return _failure(FailureCode.INTERNAL, f"the device went down {MAX_STARTS} times while the job ran"), None
    if left is not None and left <= 0:
        return _failure(FailureCode.DEADLINE, "its deadline passed while the device was down"), None
    try:
        job = read_job(request_from(unfinished.job_id, unfinished.request), manifest.model, manifest.sampler.steps)
    except KitError as error:
        return _failure(FailureCode.INTERNAL, words(error)), None
    deadline = None if left is None else clock.monotonic() + left
    return Outcome(), replace(
        job, priority=notes["priority"], deadline=deadline, preview_every=notes.get("preview_every", 0)
    )


def _failure(code: FailureCode, message: str) -> Outcome:
    return Outcome(failure=code, message=message)
