"""`JobQueue`: put jobs in, have devices claim them, get each outcome once. Safe between threads and processes.

One transaction, one disk wait: a device's turn records what it has finished and claims what it does next together.
A job's effect happens once: whoever ends it first has ended it, and any later end of the same job is dropped.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import cbor2

from firmware_bridge import limits
from firmware_bridge.closing import Closing
from firmware_bridge.errors import LocalProtocolError
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import Failure, JobRequest, Result
from firmware_bridge.queue.errors import QueueFault, QueueFull
from firmware_bridge.queue.records import DeviceRecord, JobRecord, Limits, NewJob, Outcome, State, Stuck
from firmware_bridge.queue.schema import open_database
from firmware_bridge.wire.messages import FailureCode

LEASE: Final = 180.0
"""Seconds without a sign of life of its holder after which a job may go to another device: a Pi's reboot takes one."""
MAX_ATTEMPTS: Final = 3
"""Times that a job is begun before its failure is final, where the failure may not be the job's fault."""
AGAIN: Final = frozenset({FailureCode.ENGINE_DIED, FailureCode.BUNDLE_CHANGED, FailureCode.LOST, FailureCode.INTERNAL})
"""Failures that another attempt may mend."""
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LOOK: Final = 0.2
"""Seconds between two looks for what another process has changed."""


class JobQueue(Closing):
    """The queue in one file; open it as often as needed, from as many processes.

    Args:
        path: the file.
        bounds: how much it takes.
        clock: Unix seconds.

    Raises:
        QueueFault: from any method: the file cannot be used.
    """

    def __init__(self, path: Path, bounds: Limits | None = None, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._bounds = Limits() if bounds is None else bounds
        self._clock = clock
        self._database = open_database(path)
        self._changed = threading.Condition()
        self._version = 0

    def close(self) -> None:
        """Give the file back."""
        with self._changed:
            self._database.close()

    # ------------------------------------------------------------------ producers

    def add(self, jobs: Sequence[NewJob], wait: float = 0.0) -> None:
        """Put jobs in, all or none; once this returns they are on the disk. A job that is there already stays as it is.

        Args:
            jobs: what is to be done.
            wait: seconds to wait for room.

        Raises:
            QueueFull: there is no room for them (backpressure).
            LocalProtocolError: a payload is too large, or an id is no UUID.
        """
        for job in jobs:
            if _UUID.fullmatch(job.job_id) is None:
                raise LocalProtocolError("the id of a queued job is a UUID", where=job.job_id, mend="use new_job_id()")
            if len(job.payload) > limits.MAX_PAYLOAD:
                what = f"a payload of {len(job.payload)} bytes, {limits.MAX_PAYLOAD} are allowed"
                raise LocalProtocolError(what, where=job.label or job.job_id)
        until = time.monotonic() + wait
        while not self._try_add(jobs):
            left = until - time.monotonic()
            if left <= 0:
                mend = "wait for the devices, plug in more of them, or cancel jobs: python -m firmware_bridge jobs"
                raise QueueFull(f"the queue has no room for {len(jobs)} jobs", where=str(self.path), mend=mend)
            self.wait(left)

    def _try_add(self, jobs: Sequence[NewJob]) -> bool:
        with self._transaction() as database:
            count, size = database.execute(
                "SELECT count(*), coalesce(sum(length(payload)), 0) FROM jobs WHERE state IN ('waiting', 'held')"
            ).fetchone()
            new = sum(len(job.payload) for job in jobs)
            if count + len(jobs) > self._bounds.jobs or size + new > self._bounds.payload_bytes:
                return False
            now = self._clock()
            database.executemany(
                "INSERT OR IGNORE INTO jobs (job_id, label, kind, params, payload, priority, deadline, device, bundle,"
                " state, created, changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting', ?, ?)",
                [
                    (
                        *(job.job_id, job.label, job.kind, cbor2.dumps(dict(job.params)), job.payload),
                        *(job.priority, job.deadline, job.device, job.bundle, now, now),
                    )
                    for job in jobs
                ],
            )
        return True

    def cancel(self, job_id: str) -> State:
        """Stop a job: at once where it waits, by way of its device where one has it; returns its state now.

        Raises:
            QueueFault: there is no such job.
        """
        with self._transaction() as database:
            row = database.execute("SELECT state FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
            if row is None:
                raise QueueFault("there is no such job", where=job_id, mend="python -m firmware_bridge jobs lists them")
            state = State(row[0])
            if state is State.WAITING:
                self._end(database, job_id, Failure(job_id, FailureCode.CANCELLED, "cancelled before it began"))
                return State.CANCELLED
            if state is State.HELD:
                database.execute("UPDATE jobs SET cancelling = 1 WHERE job_id = ?", (job_id,))
            return state

    def outcome(self, job_id: str) -> Outcome | None:
        """How a job ended; None while it has not. It stays until `drop`."""
        with self._changed, self._faults():
            row = self._database.execute(
                "SELECT j.job_id, j.label, j.state, o.code, o.message, o.meta, o.payload"
                " FROM outcomes o JOIN jobs j USING (job_id) WHERE j.job_id = ?",
                (job_id,),
            ).fetchone()
        if row is None:
            return None
        return Outcome(row[0], row[1], State(row[2]), row[3], row[4], cbor2.loads(row[5]), row[6])

    def drop(self, job_ids: Sequence[str]) -> None:
        """Forget jobs that have ended: their results are where they belong."""
        with self._transaction() as database:
            database.executemany(
                "DELETE FROM jobs WHERE job_id = ? AND state IN ('done', 'failed', 'cancelled')",
                [(job_id,) for job_id in job_ids],
            )

    # ------------------------------------------------------------------ devices

    def seen(self, info: DeviceInfo, port: str) -> None:
        """A device is there; its lease on the jobs that it holds begins anew."""
        with self._transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO devices (device_id, board, port, bundle, slots, seen)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (info.device_id, info.board, port, info.active_bundle, info.slots, self._clock()),
            )

    def held(self, device_id: str) -> list[JobRequest]:
        """The jobs that a device holds: after a restart of the host they are submitted again, under the same ids."""
        with self._changed, self._faults():
            rows = self._database.execute(
                f"SELECT {_REQUEST} FROM jobs WHERE state = 'held' AND holder = ? ORDER BY job_id",  # noqa: S608
                (device_id,),
            ).fetchall()
        return [self._request(row) for row in rows]

    def turn(
        self, device_id: str, bundle: str | None, room: int, ended: Sequence[Result | Failure] = ()
    ) -> list[JobRequest]:
        """A device's turn: record what it has finished, and claim up to ``room`` jobs for it, in one transaction.

        A job whose failure another attempt may mend waits again. The ends may be told to the device as taken once
        this has returned.

        Args:
            device_id: whose turn.
            bundle: its active bundle.
            room: jobs that it takes now.
            ended: results and failures under the ids that `wire_id` made.
        """
        with self._transaction() as database:
            for end in ended:
                self._record(database, device_id, end)
            self._expire(database)
            rows = database.execute(
                f"SELECT {_REQUEST} FROM jobs WHERE state = 'waiting' AND coalesce(device, ?1) = ?1"  # noqa: S608
                " AND (bundle IS NULL OR bundle = ?2) ORDER BY priority DESC, job_id LIMIT ?3",
                (device_id, bundle, max(0, room)),
            ).fetchall()
            database.executemany(
                "UPDATE jobs SET state = 'held', holder = ?, changed = ? WHERE job_id = ?",
                [(device_id, self._clock(), row[0]) for row in rows],
            )
        return [self._request(row) for row in rows]

    def give_back(self, device_id: str, wire_ids: Sequence[str]) -> None:
        """Jobs that a device did not take wait again."""
        with self._transaction() as database:
            database.executemany(
                "UPDATE jobs SET state = 'waiting', holder = NULL, changed = ?"
                " WHERE job_id = ? AND state = 'held' AND holder = ?",
                [(self._clock(), queue_id(wire_id), device_id) for wire_id in wire_ids],
            )

    def cancelling(self, device_id: str) -> list[str]:
        """Wire ids of the jobs that a device holds and that somebody wants stopped."""
        with self._changed, self._faults():
            rows = self._database.execute(
                "SELECT job_id, attempt FROM jobs WHERE state = 'held' AND holder = ? AND cancelling = 1", (device_id,)
            ).fetchall()
        return [wire_id(job_id, attempt) for job_id, attempt in rows]

    def reclaim(self, lease: float = LEASE) -> int:
        """Jobs of devices that were not seen for ``lease`` seconds wait again, as another attempt; how many."""
        with self._transaction() as database:
            return database.execute(
                "UPDATE jobs SET state = 'waiting', holder = NULL, attempt = attempt + 1, changed = ?1"
                " WHERE state = 'held' AND coalesce("
                "(SELECT seen FROM devices WHERE device_id = jobs.holder), 0) < ?1 - ?2",
                (self._clock(), lease),
            ).rowcount

    # ------------------------------------------------------------------ onlookers

    def jobs(self, state: State | None = None, limit: int = 100) -> list[JobRecord]:
        """The newest jobs, of one state or of all."""
        with self._changed, self._faults():
            rows = self._database.execute(
                "SELECT job_id, label, kind, priority, state, holder, attempt, created, changed FROM jobs"
                " WHERE ?1 IS NULL OR state = ?1 ORDER BY job_id DESC LIMIT ?2",
                (state, limit),
            ).fetchall()
        return [
            JobRecord(job_id, label, kind, priority, State(at), holder, attempt, created, changed)
            for job_id, label, kind, priority, at, holder, attempt, created, changed in rows
        ]

    def counts(self) -> dict[State, int]:
        """Jobs by state."""
        with self._changed, self._faults():
            rows = self._database.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
        return dict.fromkeys(State, 0) | {State(state): count for state, count in rows}

    def devices(self) -> list[DeviceRecord]:
        """Every device that was ever seen, the last one first."""
        with self._changed, self._faults():
            rows = self._database.execute(
                "SELECT device_id, board, port, bundle, slots, seen, (SELECT count(*) FROM jobs"
                " WHERE state = 'held' AND holder = device_id) FROM devices ORDER BY seen DESC"
            ).fetchall()
        return [DeviceRecord(*row) for row in rows]

    def stuck(self) -> list[Stuck]:
        """Waiting jobs for a device, or for a bundle, that none of the devices seen so far is or runs."""
        with self._changed, self._faults():
            rows = self._database.execute(
                "SELECT device, bundle, count(*) FROM jobs WHERE state = 'waiting'"
                " AND (device IS NOT NULL OR bundle IS NOT NULL) AND NOT EXISTS (SELECT 1 FROM devices d"
                " WHERE coalesce(jobs.device, d.device_id) = d.device_id AND coalesce(jobs.bundle, d.bundle, '') ="
                " coalesce(d.bundle, '')) GROUP BY device, bundle"
            ).fetchall()
        return [Stuck(*row) for row in rows]

    def age(self, seen: float) -> float:
        """Seconds since a device was seen."""
        return self._clock() - seen

    def wait(self, timeout: float) -> bool:
        """Wait until somebody, in this process or another, has changed the queue. Whether somebody has."""
        until = time.monotonic() + timeout
        with self._changed:
            before = self._version
            outside = self._outside_version()
            while self._version == before and self._outside_version() == outside:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(_LOOK, left))
        return True

    # ------------------------------------------------------------------ inside

    def _record(self, database: sqlite3.Connection, device_id: str, end: Result | Failure) -> None:
        """A device has ended a job, or an attempt at it."""
        job_id, attempt = queue_id(end.job_id), _attempt(end.job_id)
        row = database.execute("SELECT state, attempt, cancelling, holder FROM jobs WHERE job_id = ?", (job_id,))
        known = row.fetchone()
        if known is None or State(known[0]).is_end:
            return
        state, current, cancelling, holder = known
        if isinstance(end, Failure) and (holder != device_id or attempt != current):
            return  # it has gone to another device, which will say how it ends there
        again = isinstance(end, Failure) and end.code in AGAIN and attempt + 1 < MAX_ATTEMPTS and not cancelling
        if again and state == State.HELD:
            database.execute(
                "UPDATE jobs SET state = 'waiting', holder = NULL, attempt = attempt + 1, changed = ? WHERE job_id = ?",
                (self._clock(), job_id),
            )
            return
        self._end(database, job_id, end)

    def _end(self, database: sqlite3.Connection, job_id: str, end: Result | Failure) -> None:
        row: tuple[object, ...]
        if isinstance(end, Result):
            state, row = State.DONE, (job_id, None, "", cbor2.dumps(dict(end.meta)), end.payload)
        else:
            state = State.CANCELLED if end.code == FailureCode.CANCELLED else State.FAILED
            row = (job_id, end.code, end.message, cbor2.dumps({}), b"")
        database.execute("UPDATE jobs SET state = ?, changed = ? WHERE job_id = ?", (state, self._clock(), job_id))
        database.execute("INSERT INTO outcomes (job_id, code, message, meta, payload) VALUES (?, ?, ?, ?, ?)", row)

    def _expire(self, database: sqlite3.Connection) -> None:
        late = database.execute(
            "SELECT job_id FROM jobs WHERE state = 'waiting' AND deadline < ?", (self._clock(),)
        ).fetchall()
        for (job_id,) in late:
            self._end(database, job_id, Failure(job_id, FailureCode.DEADLINE, "its deadline passed before it began"))

    def _request(self, row: Sequence[Any]) -> JobRequest:
        job_id, attempt, kind, params, payload, priority, deadline, bundle = row
        left = None if deadline is None else max(0.0, deadline - self._clock())
        return JobRequest(wire_id(job_id, attempt), kind, cbor2.loads(params), payload, priority, left, bundle)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._changed, self._faults():
            before = self._database.total_changes
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
            if self._database.total_changes != before:  # else workers with nothing to do would rouse each other
                self._version += 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            mend = "check that the disk is not full, and that no other program holds the file"
            raise QueueFault(f"the queue cannot be used: {error}", where=str(self.path), mend=mend) from error

    def _outside_version(self) -> int:
        with self._faults():
            return int(self._database.execute("PRAGMA data_version").fetchone()[0])


_REQUEST: Final = "job_id, attempt, kind, params, payload, priority, deadline, bundle"


def wire_id(job_id: str, attempt: int) -> str:
    """The id under which a device knows an attempt at a job: another attempt is another job to it."""
    return f"{job_id}.{attempt}" if attempt else job_id


def queue_id(wire: str) -> str:
    """The queue's id of a job that a device knows as ``wire``."""
    return wire.partition(".")[0]


def _attempt(wire: str) -> int:
    return int(wire.partition(".")[2] or 0)
