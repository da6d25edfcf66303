"""The record of jobs, on disk before the host is told: a job's effect happens once, across retries and restarts.

One line a record: CRC-32 of the rest in 8 hex digits, a space, JSON. Records: ``accepted`` and ``finished``. A torn
last line is what a power cut leaves of a record that nobody was told of: it is cut off. Outcomes' payloads lie beside
the journal, written before the line that names them, and are dropped when the host says it has them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge.device import durable

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

KEPT_JOBS = 1024
KEPT_PAYLOAD_BYTES = 64 * 2**20
_COMPACT_ABOVE = 4 * KEPT_JOBS  # records in the file


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
    meta: dict[str, object] = field(default_factory=dict)
    payload: bytes = b""


@dataclass
class _Job:
    fingerprint: str
    record: dict[str, Any] | None = None  # the "finished" record


class Journal:
    """Jobs accepted and finished under ``folder``.

    On opening, jobs that were accepted and not finished are in ``interrupted``: the caller finishes each.
    Not thread-safe: one owner, or a lock around it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal"
        self._outcomes = folder / "outcomes"
        durable.make_folder(self._outcomes)
        for left in self._outcomes.glob(".*.new"):
            left.unlink()
        self._jobs: dict[str, _Job] = {}
        self._records = 0
        for record in self._read():
            self._apply(record)
        self.interrupted = [job_id for job_id, job in self._jobs.items() if job.record is None]
        self._compact()

    def knows(self, job_id: str) -> bool:
        """Whether the job was ever accepted (and is not so old that it was forgotten)."""
        return job_id in self._jobs

    def same(self, job_id: str, request: bytes) -> bool:
        """Whether the known job was accepted with these request bytes."""
        return self._jobs[job_id].fingerprint == fingerprint(request)

    def accept(self, job_id: str, kind: str, request: bytes) -> None:
        """Record a new job; on disk when it returns."""
        self._write({"event": "accepted", "job": job_id, "kind": kind, "request": fingerprint(request)})

    def finish(self, job_id: str, outcome: Outcome) -> None:
        """Record how a job ended; on disk when it returns."""
        if outcome.payload:
            durable.write_file(self._payload(job_id), outcome.payload)
        self._write(
            {
                "event": "finished",
                "job": job_id,
                "failure": outcome.failure,
                "message": outcome.message,
                "meta": outcome.meta,
                "sha256": hashlib.sha256(outcome.payload).hexdigest(),
                "bytes": len(outcome.payload),
            }
        )
        self._bound()

    def outcome(self, job_id: str) -> Outcome | None:
        """The stored outcome, or None while the job is under way or when its payload is no longer kept."""
        job = self._jobs.get(job_id)
        if job is None or job.record is None:
            return None
        record = job.record
        payload = b""
        if record["bytes"]:
            path = self._payload(job_id)
            payload = path.read_bytes() if path.exists() else b""
            if hashlib.sha256(payload).hexdigest() != record["sha256"]:
                return None
        return Outcome(record["failure"], record["message"], record["meta"], payload)

    def taken(self, job_id: str) -> None:
        """The host has the outcome: its payload need not be kept. The job's id stays known."""
        if job_id in self._jobs:
            durable.remove(self._payload(job_id))

    def _payload(self, job_id: str) -> Path:
        return self._outcomes / f"{job_id}.bin"

    def _write(self, record: dict[str, Any]) -> None:
        record = {"time": round(time.time(), 3), **record}
        durable.append(self._path, _line(record))
        self._apply(record)
        if self._records > _COMPACT_ABOVE:
            self._compact()

    def _apply(self, record: dict[str, Any]) -> None:
        self._records += 1
        if record["event"] == "accepted":
            self._jobs[record["job"]] = _Job(record["request"])
        elif record["job"] in self._jobs:
            self._jobs[record["job"]].record = record

    def _read(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        data = self._path.read_bytes()
        records, good = [], 0
        for line in data.splitlines(keepends=True):
            record = _parse(line)
            if record is None:
                where = "torn end" if good + len(line) == len(data) else "damaged line"
                log.warning("journal: %s at byte %d, %d bytes ignored", where, good, len(line))
                if where == "torn end":
                    durable.cut(self._path, good)
            else:
                records.append(record)
            good += len(line)
        return records

    def _bound(self) -> None:
        """Drop the oldest payloads above the limit."""
        files = sorted(self._outcomes.glob("*.bin"), key=lambda path: path.stat().st_mtime_ns)
        total = sum(path.stat().st_size for path in files)
        for path in files[:-1]:
            if total <= KEPT_PAYLOAD_BYTES:
                return
            total -= path.stat().st_size
            durable.remove(path)

    def _compact(self) -> None:
        """Rewrite the file with what must be remembered: every unfinished job and the newest finished ones."""
        finished = [job_id for job_id, job in self._jobs.items() if job.record is not None]
        for job_id in finished[: max(0, len(finished) - KEPT_JOBS)]:
            del self._jobs[job_id]
            durable.remove(self._payload(job_id))
        if self._records <= 2 * len(self._jobs):
            return
        lines = []
        for job_id, job in self._jobs.items():
            lines.append(_line({"event": "accepted", "job": job_id, "request": job.fingerprint}))
            if job.record is not None:
                lines.append(_line(job.record))
        durable.write_file(self._path, b"".join(lines))
        self._records = len(lines)


def fingerprint(request: bytes) -> str:
    """What stands in the journal for a request."""
    return hashlib.sha256(request).hexdigest()


def _line(record: dict[str, Any]) -> bytes:
    text = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record, or None for a line that is not one."""
    if len(line) < 10 or not line.endswith(b"\n"):
        return None
    text = line[9:-1]
    if line[:9] != b"%08x " % zlib.crc32(text):
        return None
    record: dict[str, Any] = json.loads(text)
    return record
