"""One device's worker: a thread that keeps its device busy from the queue, and records what it has done.

It pulls: a slow device asks for less, a dead one for nothing, and neither holds up the others. While a device computes
it has one job more than slots, so that it never waits for the host. The device is told that a job's end is taken only
after the queue has it on the disk.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from firmware_bridge.errors import BridgeError, DeviceRefused, JobFailed
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import Failure, JobEvent, JobRequest, Result, UnderWay
from firmware_bridge.queue.queue import JobQueue, queue_id
from firmware_bridge.wire.messages import FailureCode, RefusalCode

log = logging.getLogger(__name__)

AHEAD: Final = 1
"""Jobs beyond its slots that a device has, so that the next one is there when a slot becomes free."""
_LOOK: Final = 0.2
"""Seconds between two looks at the queue while nothing happens."""
_GREET: Final = 30.0
"""Seconds between two hellos: they renew the lease and tell of another bundle."""
_REST: Final = 1.0
"""Seconds that a device is left alone after it refused a job for now."""
_LATER: Final = frozenset({RefusalCode.BUSY, RefusalCode.NO_ACTIVE_BUNDLE})
_GATHER: Final = 0.002
"""Seconds that a worker waits for further ends, to record them in one transaction."""

Watcher = Callable[[DeviceInfo, JobEvent], None]
"""Called in the worker's thread with each event of a job, under the queue's id of the job."""


class Device(Protocol):
    """What a worker needs of `firmware_bridge.client.Client`."""

    @property
    def info(self) -> DeviceInfo:
        """What the device said in the last hello."""

    def refresh(self) -> DeviceInfo:
        """Say hello again."""

    def submit(self, job: JobRequest) -> None:
        """Hand a job over."""

    def poll_event(self, timeout: float) -> JobEvent | None:
        """The next event, or None."""

    def taken(self, job_id: str) -> None:
        """The device may forget the job's end."""

    def cancel(self, job_id: str) -> None:
        """Stop a job."""


class Worker:
    """Keeps one device busy until `stop` or until its link is gone for good.

    Args:
        device: connected.
        port: what it is connected to.
        queue: where jobs come from and go to.
        watch: told every event.
        clock: seconds, monotonic.
        preview_every: steps between two previews of each job; 0: none.
    """

    def __init__(
        self,
        device: Device,
        port: str,
        queue: JobQueue,
        watch: Watcher,
        clock: Callable[[], float],
        *,
        preview_every: int = 0,
    ) -> None:
        self._preview_every = preview_every
        self.port = port
        self._device = device
        self._queue = queue
        self._watch = watch
        self._clock = clock
        self._id = device.info.device_id
        self._held: set[str] = set()
        self._ended: list[Result | Failure] = []
        self._most = device.info.slots + AHEAD
        self._stopping = threading.Event()
        self._greeted = clock()
        self._paused_until = clock()

    def stop(self) -> None:
        """End after the present event; jobs stay with the device, and are asked for when it is seen again."""
        self._stopping.set()

    def run(self) -> None:
        """Serve the device.

        Raises:
            LinkError: it is gone for good. What it held stays its own for the length of a lease.
        """
        self._queue.seen(self._device.info, self.port)
        for job in self._queue.held(self._id):  # of an earlier life of the host
            self._submit(job)
        while not self._stopping.is_set():
            self._fill()
            self._take(self._device.poll_event(_LOOK if self._held else 0.0))
            if not self._held:
                self._queue.wait(_LOOK)
            self._look_after()
        self._record(0)

    def _fill(self) -> None:
        """Record what has ended, and claim as many jobs as the device may have."""
        room = 0 if self._clock() < self._paused_until else self._most - len(self._held)
        if self._ended or room > 0:
            for job in self._record(room):
                self._submit(job)

    def _record(self, room: int) -> list[JobRequest]:
        ended, self._ended = self._ended, []
        jobs = self._queue.turn(self._id, self._device.info.active_bundle, room, ended)
        for end in ended:
            self._device.taken(end.job_id)
        return jobs

    def _submit(self, job: JobRequest) -> None:
        try:
            self._device.submit(replace(job, preview_every=self._preview_every))
        except DeviceRefused as refused:
            if refused.code == RefusalCode.OTHER_BUNDLE:  # it has changed since the last hello
                self._queue.give_back(self._id, [job.job_id])
                self._greet()
            elif refused.code in _LATER:
                self._put_off(job, refused)
            else:
                self._ended.append(Failure(job.job_id, FailureCode.BAD_INPUT, refused.what))
        except JobFailed as failed:
            self._ended.append(Failure(job.job_id, failed.code, failed.what))
        else:
            self._held.add(job.job_id)

    def _put_off(self, job: JobRequest, refused: DeviceRefused) -> None:
        """The device does not take the job now: it is everybody's again.

        A device that has jobs gets its next one when one of them ends; one that has none rests for a moment.
        """
        self._queue.give_back(self._id, [job.job_id])
        self._most = max(1, len(self._held))
        if not self._held:
            self._paused_until = self._clock() + _REST
            log.warning("%s on %s takes no jobs: %s", self._id, self.port, refused.what)

    def _take(self, event: JobEvent | None) -> None:
        """Take an event, and those that come close behind an end."""
        while event is not None:
            if not isinstance(event, UnderWay):
                self._held.discard(event.job_id)
                self._ended.append(event)
            self._tell(event)
            event = self._device.poll_event(_GATHER if self._ended else 0.0)

    def _tell(self, event: JobEvent) -> None:
        try:
            self._watch(self._device.info, event)
        except BridgeError:
            log.exception("a watcher failed at an event of job %s", queue_id(event.job_id))

    def _look_after(self) -> None:
        """Stop what somebody wants stopped; say hello now and then."""
        for job_id in self._queue.cancelling(self._id):
            if job_id in self._held:
                self._device.cancel(job_id)
        now = self._clock()
        if now - self._greeted > _GREET or (self._paused_until > now > self._greeted + _REST):
            self._greet()

    def _greet(self) -> None:
        self._greeted = self._clock()
        info = self._device.refresh()
        self._queue.seen(info, self.port)
        self._most = min(info.slots + AHEAD, max(1, info.credits + len(self._held)))
