"""The record of jobs, on disk before the host is told: a job's effect happens once, across retries and restarts.

One record a line (``edge.device.records``): ``accepted``, ``started`` and ``finished``. A torn last line is what a
power cut leaves of a record that nobody was told of: it is cut off. Requests of jobs that have not ended and payloads
of outcomes lie beside the journal, written before the line that names them; a request goes when its job has ended, a
payload when the host says that it has it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge.device import durable, records

if TYPE_CHECKING:
    from edge.device.disk import Disk

log = logging.getLogger(__name__)

KEPT_JOBS = 1024
KEPT_PAYLOAD_BYTES = 64 * 2**20
_COMPACT_ABOVE = 4 * KEPT_JOBS  # records in the file
_FILE = "journal"
_SUFFIX = ".bin"  # a job's id may be ".."


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        failure: 0 for a result, else the wire's failure code.
        message: words for the failure.
        meta: what goes with a result.
        payload: the result's bytes.
    """

    failure: int = 0
    message: str = ""
    meta: Mapping[str, object] = field(default_factory=dict)
    payload: bytes = b""


@dataclass(frozen=True)
class Unfinished:
    """A job that was accepted and has not ended.

    Attributes:
        job_id: which.
        request: its bytes as they were accepted; None where the disk lost them.
        notes: what was noted with it.
        starts: how often it was started.
    """

    job_id: str
    request: bytes | None
    notes: Mapping[str, Any]
    starts: int


@dataclass
class _Job:
    accepted: dict[str, Any]
    starts: int = 0
    finished: dict[str, Any] | None = None


class Journal:
    """Jobs accepted, started and finished on ``disk``. Not thread-safe: one owner, or a lock around it.

    Args:
        disk: the device's.
        clock: tells the time that stands in each record, Unix seconds.

    Raises:
        OSError: from any method: the disk refuses; what was to be recorded is not.
    """

    def __init__(self, disk: Disk, clock: Callable[[], float] = time.time) -> None:
        self._disk = disk
        self._clock = clock
        for folder in ("outcomes", "requests"):
            durable.make_folder(disk, folder)
            durable.remove_unfinished(disk, folder)
        durable.remove_unfinished(disk, "")
        self._jobs: dict[str, _Job] = {}
        self._records = 0
        self._is_torn = False
        for record in self._read():
            self._apply(record)
        self._payloads = {each: disk.size(_payload(each)) or 0 for each in self._in_order(_jobs_in(disk, "outcomes"))}
        for job_id in _jobs_in(disk, "requests"):
            if job_id not in self._jobs or self._jobs[job_id].finished is not None:
                disk.remove(_request(job_id))
        self._compact()

    def knows(self, job_id: str) -> bool:
        """Whether the job was ever accepted (and is not so old that it was forgotten)."""
        return job_id in self._jobs

    def same(self, job_id: str, request: bytes) -> bool:
        """Whether the known job was accepted with these request bytes."""
        return bool(self._jobs[job_id].accepted["request"] == fingerprint(request))

    def unfinished(self) -> list[Unfinished]:
        """The jobs that have not ended, oldest first."""
        return [self._unfinished(job_id, job) for job_id, job in self._jobs.items() if job.finished is None]

    def accept(self, job_id: str, request: bytes, notes: Mapping[str, object] | None = None) -> None:
        """Record a new job; on disk when it returns.

        Args:
            job_id: a file's name as well.
            request: all that is needed to run it, again after a restart.
            notes: plain values to go with it.
        """
        durable.write_new(self._disk, _request(job_id), request)
        self._write({"event": "accepted", "job": job_id, "request": fingerprint(request), "notes": dict(notes or {})})

    def start(self, job_id: str) -> int:
        """Record that a job begins; on disk when it returns. How often it has begun, this time among them."""
        self._write({"event": "started", "job": job_id})
        return self._jobs[job_id].starts

    def finish(self, job_id: str, outcome: Outcome) -> None:
        """Record how a job ended; on disk when it returns. A job ends once: what comes later is dropped."""
        if self._jobs[job_id].finished is not None:
            log.warning("job %s has ended already", job_id)
            return
        if outcome.payload:
            durable.write_new(self._disk, _payload(job_id), outcome.payload)
            self._payloads[job_id] = len(outcome.payload)
        self._write(
            {
                "event": "finished",
                "job": job_id,
                "failure": outcome.failure,
                "message": outcome.message,
                "meta": dict(outcome.meta),
                "sha256": hashlib.sha256(outcome.payload).hexdigest(),
                "bytes": len(outcome.payload),
            }
        )
        durable.remove(self._disk, _request(job_id))
        self._bound()

    def outcome(self, job_id: str) -> Outcome | None:
        """The stored outcome, or None while the job is under way or when its payload is no longer kept."""
        job = self._jobs.get(job_id)
        if job is None or job.finished is None:
            return None
        record, payload = job.finished, b""
        if record["bytes"]:
            path = _payload(job_id)
            payload = self._disk.read(path) if self._disk.size(path) is not None else b""
            if hashlib.sha256(payload).hexdigest() != record["sha256"]:
                return None
        return Outcome(record["failure"], record["message"], record["meta"], payload)

    def taken(self, job_id: str) -> None:
        """The host has the outcome: its payload need not be kept. The job's id stays known."""
        job = self._jobs.get(job_id)
        if job is not None and job.finished is not None:
            self._drop_payload(job_id)

    # Inside

    def _unfinished(self, job_id: str, job: _Job) -> Unfinished:
        path = _request(job_id)
        request = self._disk.read(path) if self._disk.size(path) is not None else None
        if request is not None and fingerprint(request) != job.accepted["request"]:
            request = None
        return Unfinished(job_id, request, job.accepted["notes"], job.starts)

    def _write(self, record: dict[str, Any]) -> None:
        record = {"time": round(self._clock(), 3), **record}
        line = (b"\n" if self._is_torn else b"") + records.encode(record)
        self._is_torn = True  # until the whole line is there: the next one must not continue half of this one
        durable.append(self._disk, _FILE, line)
        self._is_torn = False
        self._apply(record)
        if self._records > _COMPACT_ABOVE:
            self._compact()

    def _apply(self, record: dict[str, Any]) -> None:
        self._records += 1
        job = self._jobs.get(record["job"])
        if record["event"] == "accepted":
            self._jobs[record["job"]] = _Job(record, record.get("starts", 0))
        elif job is not None and record["event"] == "started":
            job.starts += 1
        elif job is not None:
            job.finished = record

    def _read(self) -> list[dict[str, Any]]:
        if self._disk.size(_FILE) is None:
            return []
        data = self._disk.read(_FILE)
        found, good = [], 0
        for line in data.splitlines(keepends=True):
            record = records.decode(line)
            if record is not None:
                found.append(record)
            elif not line.endswith(b"\n"):
                log.warning("journal: %d bytes of a record that was not finished are cut off", len(line))
                self._disk.cut(_FILE, good)
                self._disk.sync(_FILE)
            elif line != b"\n":
                log.error("journal: a damaged record at byte %d, %d bytes", good, len(line))
            good += len(line)
        return found

    def _in_order(self, names: list[str]) -> list[str]:
        """Payloads' names in the order in which their jobs were accepted; those of no known job first."""
        place = {job_id: n for n, job_id in enumerate(self._jobs)}
        return sorted(names, key=lambda each: place.get(each, -1))

    def _drop_payload(self, job_id: str) -> None:
        durable.remove(self._disk, _payload(job_id))
        self._payloads.pop(job_id, None)

    def _bound(self) -> None:
        """Drop the oldest payloads above the limit."""
        while sum(self._payloads.values()) > KEPT_PAYLOAD_BYTES and len(self._payloads) > 1:
            self._drop_payload(next(iter(self._payloads)))

    def _compact(self) -> None:
        """Rewrite the file with what must be remembered: every unfinished job and the newest finished ones."""
        finished = [job_id for job_id, job in self._jobs.items() if job.finished is not None]
        for job_id in finished[: max(0, len(finished) - KEPT_JOBS)]:
            del self._jobs[job_id]
        for job_id in [each for each in self._payloads if each not in self._jobs]:
            self._drop_payload(job_id)
        if self._records <= 2 * len(self._jobs):
            return
        lines = []
        for job in self._jobs.values():
            lines.append(records.encode({**job.accepted, "starts": job.starts}))
            if job.finished is not None:
                lines.append(records.encode(job.finished))
        durable.write_new(self._disk, _FILE, b"".join(lines))
        self._records = len(lines)


def _payload(job_id: str) -> str:
    return f"outcomes/{job_id}{_SUFFIX}"


def _request(job_id: str) -> str:
    return f"requests/{job_id}{_SUFFIX}"


def _jobs_in(disk: Disk, folder: str) -> list[str]:
    return [name.removesuffix(_SUFFIX) for name in disk.names(folder)]


def fingerprint(request: bytes) -> str:
    """What stands in the journal for a request."""
    return hashlib.sha256(request).hexdigest()
