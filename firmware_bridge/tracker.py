"""The jobs that a host has in flight on one device: to submit again, to assemble results of, to report on."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from firmware_bridge import limits
from firmware_bridge.errors import LocalProtocolError
from firmware_bridge.jobs import Failure, JobEvent, JobRequest, Preview, Progress, Result, UnderWay
from firmware_bridge.wire import messages
from firmware_bridge.wire.messages import FailureCode


@dataclass
class _Open:
    """A job that has not ended."""

    request: JobRequest
    accepted: bool = False
    head: messages.JobResult | None = None
    payload: bytearray = field(default_factory=bytearray)


class JobTracker:
    """Not thread-safe; its owner locks."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}
        self._events: deque[JobEvent] = deque()

    def add(self, job: JobRequest) -> None:
        """A job is about to be submitted. LocalProtocolError: its id is in flight, or there are too many."""
        if job.job_id in self._open:
            raise LocalProtocolError("a job of this id is in flight", where=job.job_id, mend="use new_job_id()")
        if len(self._open) >= limits.MAX_JOBS:
            raise LocalProtocolError(f"{limits.MAX_JOBS} jobs are in flight", mend="take some results first")
        self._open[job.job_id] = _Open(job)

    def accept(self, job_id: str) -> None:
        """The device has taken the job: from here on it ends in a result or a failure."""
        if job_id in self._open:
            self._open[job_id].accepted = True

    def received(self, job_id: str) -> int:
        """Bytes of the job's result that are here already."""
        return len(self._open[job_id].payload) if job_id in self._open else 0

    def drop(self, job_id: str) -> None:
        """The device has refused the job."""
        self._open.pop(job_id, None)

    def accepted(self) -> list[JobRequest]:
        """The jobs that a new session has to submit again."""
        return [job.request for job in self._open.values() if job.accepted]

    def in_flight(self) -> list[str]:
        """Ids of the jobs that have not ended."""
        return list(self._open)

    def expects(self, job_ids: Collection[str] | None) -> bool:
        """Whether any of these jobs (None: any at all) has not ended."""
        return bool(self._open) if job_ids is None else any(job_id in self._open for job_id in job_ids)

    def take(self, job_ids: Collection[str] | None) -> JobEvent | None:
        """The oldest event of these jobs (None: of any)."""
        for index, event in enumerate(self._events):
            if job_ids is None or event.job_id in job_ids:
                del self._events[index]
                return event
        return None

    def fail(self, job_id: str, code: int, message: str) -> None:
        """A job cannot go on, though the device has not said so itself."""
        if self._open.pop(job_id, None) is not None:
            self._events.append(Failure(job_id, code, message))

    def receive(self, message: messages.Event) -> None:
        """Take a job's event from the device. One of a job not in flight is left over from before, and dropped."""
        job = None if isinstance(message, messages.DeviceLog) else self._open.get(message.job_id)
        if job is None:
            return
        match message:
            case messages.JobProgress():
                self._add_under_way(_progress(message))
            case messages.JobPreview(job_id, step, of, channels, height, width, pixels):
                if len(pixels) == channels * height * width:
                    self._add_under_way(Preview(job_id, step, of, (channels, height, width), pixels))
            case messages.JobFailure(job_id, reason, text):
                self.fail(job_id, reason, text)
            case messages.JobResult():
                if job.head != message:  # else it is said again, and goes on where it stopped
                    job.payload = bytearray()
                job.head = message
                self._finish_if_whole(job)
            case messages.ResultPayload():
                self._append(job, message)

    def _append(self, job: _Open, part: messages.ResultPayload) -> None:
        if job.head is None:
            return
        if part.offset == 0:
            job.payload.clear()  # it is said again from the start
        if part.offset == len(job.payload):
            job.payload += part.data
            self._finish_if_whole(job)
        elif part.offset > len(job.payload):  # it goes on from bytes of another result
            self.fail(part.job_id, FailureCode.LOST, "the device has made another result of this job")

    def _finish_if_whole(self, job: _Open) -> None:
        assert job.head is not None
        if len(job.payload) >= job.head.payload_size:
            del self._open[job.request.job_id]
            self._events.append(Result(job.request.job_id, job.head.meta, bytes(job.payload)))

    def _add_under_way(self, event: UnderWay) -> None:
        if len(self._events) >= limits.PROGRESS_KEPT:
            oldest = next((event for event in self._events if isinstance(event, UnderWay)), None)
            if oldest is not None:
                self._events.remove(oldest)
        self._events.append(event)


def _progress(message: messages.JobProgress) -> Progress:
    return Progress(
        job_id=message.job_id,
        step=message.step,
        of=message.of,
        nanoseconds=message.nanoseconds,
        passes=message.passes,
        residual_passes=message.residual_passes,
        macs=message.macs,
        saturated=message.saturated,
    )
