"""The host of a simulation: the real `HostEndpoint` per device, over a queue that stands for a database.

The process may be killed between any two turns; the queue stays. What is in it is only changed the way a database with
fsync is: an end is recorded, then the device is told that it may forget.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from firmware_bridge.errors import BridgeError, DeviceRefused, LinkError
from firmware_bridge.host import operations
from firmware_bridge.host.endpoint import HostEndpoint
from firmware_bridge.host.task import Task
from firmware_bridge.jobs import Failure, JobRequest, Result, UnderWay
from firmware_bridge.testing.simulation.machine import Bundle, Nature
from firmware_bridge.testing.simulation.scenario import Work
from firmware_bridge.transfer import Source
from firmware_bridge.wire import messages
from firmware_bridge.wire.messages import RefusalCode

_RETRY = 0.5
"""Seconds after which something that the device could not do is tried again."""

_REFUSALS: Final = {
    Nature.REFUSED: frozenset({RefusalCode.SELF_TEST}),
    Nature.UNTRUSTED: frozenset({RefusalCode.UNTRUSTED, RefusalCode.DOWNGRADE}),
}
"""How bundles that must not run are refused."""

_PASSING: Final = frozenset(
    {RefusalCode.BUSY, RefusalCode.NO_ACTIVE_BUNDLE, RefusalCode.UNKNOWN_BUNDLE, RefusalCode.HASH_MISMATCH}
)


@dataclass
class Queue:
    """What the host's disk holds for one device.

    Args:
        work: what there is to do.
        deployed: bundles that are done, activated or refused.
        version: of the next release.
        accepted: jobs that the device has taken.
        ends: how each ended job ended.
        violations: promises that were broken.
    """

    work: Work
    deployed: int = 0
    version: int = 1
    accepted: set[str] = field(default_factory=set)
    ends: dict[str, Result | Failure] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def end(self, end: Result | Failure) -> None:
        """Record a job's end, once."""
        if end.job_id in self.ends:
            self.violations.append(f"{end.job_id} ends twice: {self.ends[end.job_id]}, then {end}")
        self.ends[end.job_id] = end

    @property
    def is_done(self) -> bool:
        """Everything was done."""
        return self.deployed == len(self.work.bundles) and len(self.ends) == len(self.work.jobs)


class HostProcess:
    """One life of the host's process, for one device.

    Args:
        where: the line's name.
        queue: what outlives it.
        release: signs a bundle as a version.
        epoch: draws session epochs.
        bytes_per_second: line rate where it is known.
    """

    def __init__(
        self,
        where: str,
        queue: Queue,
        release: Callable[[Bundle, int], bytes],
        epoch: Callable[[], int],
        bytes_per_second: float | None,
    ) -> None:
        self.endpoint = HostEndpoint(where, connect_timeout=5.0, epoch=epoch, bytes_per_second=bytes_per_second)
        self._queue = queue
        self._release = release
        self._submissions: dict[str, Task[None]] = {}
        self._deployment: Task[Any] | None = None
        self._uploaded = 0  # blobs of the bundle at hand
        self._not_before: dict[str, float] = {}

    def turn(self, now: float) -> None:
        """Go on with everything."""
        self.endpoint.process(now)
        self._deploy(now)
        self._submit(now)
        self._take_events()
        self.endpoint.process(now)

    def due(self, now: float) -> list[float]:
        """Times at which `turn` has something to do."""
        times = [at for at in self._not_before.values() if at > now]
        times += [at for at in (*self._queue.work.deploy_at, *(at for at, _ in self._queue.work.jobs)) if at > now]
        deadline = self.endpoint.deadline()
        return times if deadline is None else [*times, deadline]

    def cancel(self, number: int) -> str:
        """The user cancels the job of this number; its id."""
        _, job = self._queue.work.jobs[number]
        if job.job_id in self.endpoint.tracker.in_flight():
            self.endpoint.start(operations.request(lambda request: messages.Cancel(request, job.job_id), messages.Done))
        return job.job_id

    # ------------------------------------------------------------------ bundles

    def _deploy(self, now: float) -> None:
        queue = self._queue
        number = queue.deployed
        if self._deployment is not None:
            self._deployment.notes.clear()
            if self._deployment.is_done:
                self._deployed(self._deployment, queue.work.bundles[number], now)
            return
        if number == len(queue.work.bundles) or now < max(queue.work.deploy_at[number], self._waits("deploy")):
            return
        bundle = queue.work.bundles[number]
        if self._uploaded == len(bundle.blobs):
            release = self._release(bundle, queue.version)
            self._deployment = self.endpoint.start(operations.activate(bytes.fromhex(bundle.bundle_id), release))
        else:
            blob = bundle.blobs[self._uploaded]
            source = Source(hashlib.sha256(blob).hexdigest(), blob)
            upload = operations.upload(source, operations.UploadCount(), lambda: ())
            self._deployment = self.endpoint.start(upload, "upload")

    def _deployed(self, task: Task[Any], bundle: Bundle, now: float) -> None:
        """A blob is there, or the bundle is active, or refused; or something went wrong, and all begins anew."""
        self._deployment = None
        code = task.error.code if isinstance(task.error, DeviceRefused) else None
        is_refused = any(code in codes for codes in _REFUSALS.values())
        if task.error is None and self._uploaded < len(bundle.blobs):
            self._uploaded += 1
            return
        self._uploaded = 0
        self._queue.version += task.error is None or is_refused
        if code == RefusalCode.DOWNGRADE and bundle.nature is not Nature.UNTRUSTED:
            self._not_before["deploy"] = now + _RETRY  # it was active once, and was gone back from: released anew
            return
        if task.error is not None and not is_refused:
            self._retry("deploy", task.error, now)
            return
        self._queue.deployed += 1
        if not (code in _REFUSALS[bundle.nature] if bundle.nature in _REFUSALS else task.error is None):
            what = f"was refused ({code})" if is_refused else "was activated"
            self._queue.violations.append(f"bundle {bundle.bundle_id[:12]} {what}: {bundle.nature.value}")

    # ------------------------------------------------------------------ jobs

    def _submit(self, now: float) -> None:
        for at, job in self._queue.work.jobs:
            task = self._submissions.get(job.job_id)
            if task is None and now >= max(at, self._waits(job.job_id)) and job.job_id not in self._queue.ends:
                self._submissions[job.job_id] = self.endpoint.submit(job)
            elif task is not None and task.is_done and job.job_id not in self._queue.ends:
                self._submitted(job, task, now)

    def _submitted(self, job: JobRequest, task: Task[None], now: float) -> None:
        if task.error is None:
            self._queue.accepted.add(job.job_id)
            return
        self.endpoint.tracker.drop(job.job_id)
        del self._submissions[job.job_id]
        self._retry(job.job_id, task.error, now)

    def _take_events(self) -> None:
        while (event := self.endpoint.take_event()) is not None:
            if isinstance(event, UnderWay):
                continue
            self._queue.end(event)
            self.endpoint.taken(event.job_id)

    # ------------------------------------------------------------------ trouble

    def _waits(self, name: str) -> float:
        return self._not_before.get(name, 0.0)

    def _retry(self, name: str, error: BaseException, now: float) -> None:
        """What may pass is tried again; anything else is a broken promise."""
        if isinstance(error, LinkError) or (isinstance(error, DeviceRefused) and error.code in _PASSING):
            self._not_before[name] = now + _RETRY
            return
        if not isinstance(error, BridgeError):
            raise error
        self._queue.violations.append(f"{name}: {error}")
        self._not_before[name] = float("inf")
