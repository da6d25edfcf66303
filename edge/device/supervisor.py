"""The device as the bridge sees it: storage, activation and jobs, joined.

Two threads. The bridge's calls every method here that has no other note, and must never wait long. The scheduler's runs
the engine and activations, writes outcomes to the journal, and leaves notes in a queue; a byte in a pipe wakes the
bridge's thread, which passes them on to the host in ``advance``. What a job came to is on disk before the host hears.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from boards.errors import KitError
from edge.bundle import KIT_VERSION
from edge.device.activation import Bundles
from edge.device.answers import failure_code, refusal, words
from edge.device.disk import FolderDisk
from edge.device.errors import Busy, EngineDied, JobRejected, NoActiveBundle, StorageError
from edge.device.identity import Identity
from edge.device.intake import Intake
from edge.device.journal import Journal, Outcome
from edge.device.notes import Activation, Ended, at_time, logged
from edge.device.recovery import recover
from edge.device.requests import read_job, request_bytes
from edge.device.scheduler import SNAPSHOT_SECONDS, Scheduler
from edge.device.snapshots import Snapshots
from edge.device.standing import StandingFile
from edge.device.store import Store
from edge.device.trust import Gate
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import Failure, JobRequest, Progress, Result
from firmware_bridge.keys import TrustedKeys
from firmware_bridge.limits import MAX_JOBS
from firmware_bridge.wire.messages import FailureCode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from boards import Board
    from edge.device.engine_process import EngineResult, StepReport, Timeouts
    from edge.device.scheduler import Job, Totals
    from edge.device.snapshots import Snapshot
    from edge.device.standing import Standing
    from firmware_bridge.handler import BlobStore, Outbox

log = logging.getLogger(__name__)

QUEUE_LIMIT = MAX_JOBS
_KEPT_NANOSECONDS = 1000  # steps whose times a result lists one by one; a message takes no more
_READ_WAKE = 4096


class Supervisor:
    """Implements ``firmware_bridge.handler.DeviceHandler``.

    Args:
        root: the device's folder; created if its parent is there. One supervisor at a time.
        board: what this device is.
        prefix: words before the engine's command (an emulator's).
        timeouts: of the engine.
        trust_on_first_use: take the key of the first signed bundle that passes, if no key is trusted here.
        snapshot_seconds: computation between two snapshots of a job, at least.

    Raises:
        StorageError: the folder cannot be used, or another supervisor uses it.
    """

    store: BlobStore

    def __init__(
        self,
        root: Path,
        board: Board,
        *,
        prefix: tuple[str, ...] = (),
        timeouts: Timeouts | None = None,
        trust_on_first_use: bool = False,
        snapshot_seconds: float = SNAPSHOT_SECONDS,
    ) -> None:
        self.board = board
        self._identity = Identity(root)  # first: it keeps a second supervisor from what follows
        disk = FolderDisk(root)
        self._store = Store(disk, board.storage.budget_bytes)
        self.store = Intake(self._store.blobs)
        self._journal = Journal(disk)
        self._journal_lock = threading.Lock()
        self._snapshots = Snapshots(disk)
        self._gate = Gate(TrustedKeys(root / "keys"), board.name, takes_first=trust_on_first_use)
        self._bundles = Bundles(
            self._store, StandingFile(disk), self._gate, root=root, board=board, prefix=prefix, timeouts=timeouts
        )
        self._bundles.boot()
        self._outbox: Outbox | None = None
        self._session = 0
        self._under_way: set[str] = set()
        self._activating = False
        self._notes: deque[Progress | Ended | Activation] = deque()
        self._progress: dict[str, Progress] = {}  # the newest of each job, until there is room for it
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        self._restarts: dict[str, int] = {}  # by job: how often a restart of the device interrupted it
        self._scheduler = Scheduler(self._bundles.start_engine, self, QUEUE_LIMIT, snapshot_seconds)
        for restarted in recover(self._journal, self._snapshots, *self._bundles.current):
            self._restarts[restarted.job.job_id] = restarted.restarts
            self._under_way.add(restarted.job.job_id)
            self._scheduler.submit(restarted.job)
        self._scheduler.start()

    def close(self) -> None:
        """End the engine and the scheduler. Jobs under way go on at the next start."""
        self._scheduler.stop()
        with logged("the trial of the active bundle is not settled"):
            self._bundles.closing()
        for fd in (self._wake_read, self._wake_write):
            os.close(fd)
        self._identity.release()

    def is_well(self) -> bool:
        """False once the scheduler's thread has ended on a fault of ours: the process had better start anew."""
        return self._scheduler.is_alive()

    # The bridge's calls

    def attach(self, outbox: Outbox) -> None:
        """How to speak to the host."""
        self._outbox = outbox

    def describe(self) -> DeviceInfo:
        """Who this device is and what it can hold."""
        active, active_id = self._bundles.current
        versions: dict[str, object] = {"kit": KIT_VERSION}
        standing = self._bundles.standing
        versions |= {
            "release": standing.version,
            "downgrades": standing.downgrades,
            "needs_release": not self._gate.is_open,
            "bundle_state": str(standing.trust) if standing.trust else "none",
        }
        if active is not None:
            versions |= {"executorch": active.runtime.executorch, "operators": active.runtime.operators}
        return DeviceInfo(
            agent=f"edge.device/{KIT_VERSION}",
            device_id=self._identity.device_id,
            boot_id=self._identity.boot_id,
            board=self.board.name,
            versions=versions,
            slots=self.board.slots,
            memory_bytes=self.board.memory.budget_bytes,
            storage_free=self._store.blobs.free(),
            active_bundle=active_id,
        )

    def session_opened(self) -> None:
        """A host is here; notes for the one before are void."""
        self._session += 1
        self._progress.clear()
        log.info("host connected, session %d", self._session)

    def session_closed(self) -> None:
        """The host is gone; jobs go on."""
        log.info("host disconnected, %d jobs under way", len(self._under_way))

    def activate(self, request: int, bundle_id: str, release: bytes) -> None:
        """Queue an activation behind the jobs that came before it.

        Raises:
            DeviceRefused: UNKNOWN_BUNDLE, BUNDLE_INVALID, BUSY, UNTRUSTED, DOWNGRADE.
        """
        if self._activating:
            raise refusal(Busy("another activation is under way", mend="wait for its end"))
        try:
            admitted = self._bundles.admit(bundle_id, release)
        except KitError as error:
            log.error("bundle %s refused: %s", bundle_id[:12], error)  # noqa: TRY400  an operator's log
            raise refusal(error) from error
        self._activating = True
        note = Activation(request, self._session, bundle_id)
        self._scheduler.call(lambda: self._run_activation(note, release, admitted))

    def confirm(self, bundle_id: str) -> None:
        """The host has seen that the active bundle works.

        Raises:
            DeviceRefused: UNKNOWN_BUNDLE, STORAGE.
        """
        try:
            self._bundles.confirm(bundle_id)
        except KitError as error:
            raise refusal(error) from error

    def submit(self, job: JobRequest) -> None:
        """Take a job, or say again how it ended.

        Raises:
            DeviceRefused: BUSY, NO_ACTIVE_BUNDLE, UNSUPPORTED, BAD_INPUT.
        """
        request = request_bytes(job)
        try:
            if self._journal.knows(job.job_id):
                self._repeat(job.job_id, request)
                return
            active = self._bundles.active
            if active is None:
                raise NoActiveBundle("no bundle is active", where=f"job {job.job_id}", mend="deploy one")
            if self._activating:  # else a job checked against one bundle would run in the next
                raise Busy("an activation is under way", where=f"job {job.job_id}", mend="wait for its end")
            ready = read_job(job, active.model, active.sampler.steps)
            ready = replace(ready, priority=job.priority, deadline=at_time(time.monotonic(), job.deadline))
            if len(self._under_way) >= QUEUE_LIMIT:
                raise Busy(f"{len(self._under_way)} jobs are under way", mend="wait for one to end")
            notes = {
                "bundle": self._bundles.active_id,
                "priority": job.priority,
                "deadline": at_time(time.time(), job.deadline),
            }
            with self._journal_lock:
                self._journal.accept(job.job_id, request, notes)
        except KitError as error:
            log.warning("job %s refused: %s", job.job_id, error)
            raise refusal(error) from error
        log.info("job %s accepted: %s, %d bytes", job.job_id, job.kind, len(job.payload))
        self._under_way.add(job.job_id)
        self._scheduler.submit(ready)

    def cancel(self, job_id: str) -> None:
        """Stop a job before its next step."""
        self._scheduler.cancel(job_id)

    def forget(self, job_id: str) -> None:
        """The host has the job's end."""
        with self._journal_lock:
            self._journal.taken(job_id)

    def wake_files(self) -> Sequence[int]:
        """Readable when the scheduler's thread has left notes."""
        return (self._wake_read,)

    def advance(self, now: float) -> float | None:  # noqa: ARG002  nothing here waits for a time
        """Pass the notes on to the host."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_read, _READ_WAKE):
                pass
        self._send_progress()
        while self._notes:
            note = self._notes.popleft()
            if isinstance(note, Progress):
                self._progress[note.job_id] = note
                self._send_progress()
            elif isinstance(note, Activation):
                self._tell_activation(note)
            elif note.job_id in self._progress:
                self._notes.appendleft(note)  # the last step's progress has to go first, and there is no room yet
                break
            else:
                self._under_way.discard(note.job_id)
                self._tell_end(note.job_id)
        return None

    # The scheduler's calls, from its thread

    def begun(self, job: Job) -> None:
        """A job is about to run: from here on, a crash may be its bundle's."""
        with logged(f"job {job.job_id}: the bundle's trial is not recorded"):
            self._bundles.job_begins(job.job_id)

    def kept(self, job: Job, snapshot: Snapshot) -> None:
        """A job may be continued from here after a restart."""
        with logged(f"job {job.job_id}: its snapshot is not kept"):
            self._snapshots.write(job.job_id, snapshot)

    def progressed(self, job: Job, report: StepReport) -> None:
        """A step ran."""
        done = report.step - job.start + 1
        self._leave(
            Progress(
                job_id=job.job_id,
                step=done,
                of=done + report.left,
                nanoseconds=report.nanoseconds,
                passes=report.passes,
                residual_passes=report.residual_passes,
                macs=report.macs,
                saturated=report.saturated,
            )
        )

    def finished(self, job: Job, result: EngineResult, totals: Totals) -> None:
        """A job ended well: first the journal, then the host."""
        active = self._bundles.active
        assert active is not None, "a job ran, so a bundle is active"
        if totals.saturated:
            log.warning("job %s: %d elements saturated", job.job_id, totals.saturated)
        meta: dict[str, object] = {
            "score": result.score,
            "shape": [active.model.channels, active.model.height, active.model.width],
            "map": bool(result.anomaly),
            "steps": len(totals.nanoseconds),
            "passes": totals.passes,
            "residual_passes": totals.residual_passes,
            "macs": totals.macs,
            "saturated": totals.saturated,
            "nanoseconds": totals.nanoseconds[:_KEPT_NANOSECONDS],
            "peak_rss": totals.peak_rss,
            "state_bytes": totals.state_bytes,
            "bundle": self._bundles.active_id,
        }
        if job.job_id in self._restarts:
            meta |= {"restarts": self._restarts[job.job_id], "resumed_at": totals.resumed_at}
        seconds = sum(totals.nanoseconds) / 1e9
        log.info("job %s done: %d steps in %.3f s", job.job_id, len(totals.nanoseconds), seconds)
        with logged(f"job {job.job_id}: the bundle's trial is not recorded"):
            self._bundles.job_ended(job.job_id, well=True)
        self._end(job.job_id, Outcome(meta=meta, payload=result.image + result.anomaly))

    def failed(self, job: Job, error: KitError) -> None:
        """A job ended otherwise."""
        log.error("job %s failed: %s", job.job_id, error)
        with logged(f"job {job.job_id}: the bundle's trial is not recorded"):
            self._bundles.job_ended(job.job_id, well=False, crashed=isinstance(error, EngineDied))
        self._end(job.job_id, Outcome(failure=failure_code(error), message=words(error)))

    def _run_activation(self, note: Activation, release: bytes, admitted: Standing) -> None:
        """The task that ``activate`` queues."""
        bundle_id = note.bundle_id
        error: KitError | None = None
        self._scheduler.replace_engine(None)  # two programs at once may not fit
        try:
            engine = self._bundles.activate(bundle_id, release, admitted, lambda *at: self._leave(note.at(*at)))
            self._scheduler.replace_engine(engine)
        except KitError as refused:
            error = refused
        except OSError as broken:
            error = StorageError(f"the disk refuses: {broken.strerror}", mend="look at the device's disk")
        if error is not None:
            kept = (self._bundles.active_id or "none")[:12]
            log.error("bundle %s refused: %s; active: %s", bundle_id[:12], error, kept)
        self._leave(replace(note, is_end=True, error=error))

    def _end(self, job_id: str, outcome: Outcome) -> None:
        """Make an outcome durable and leave a note. Where the disk refuses even that, the host is told so instead."""
        try:
            with self._journal_lock:
                self._journal.finish(job_id, outcome)
            self._snapshots.drop(job_id)
        except OSError as error:
            log.critical("job %s: the journal cannot be written: %s", job_id, error)
        self._leave(Ended(job_id))

    def _leave(self, note: Progress | Ended | Activation) -> None:
        self._notes.append(note)
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well as one byte more
            os.write(self._wake_write, b"!")

    # Words to the host

    def _send_progress(self) -> None:
        if self._outbox is None or not self._outbox.connected():
            self._progress.clear()
            return
        for job_id in list(self._progress):
            if not self._outbox.progress(self._progress[job_id]):
                return
            del self._progress[job_id]

    def _tell_end(self, job_id: str) -> None:
        if self._outbox is None or not self._outbox.connected():
            return
        with self._journal_lock:
            outcome = self._journal.outcome(job_id)
        if outcome is None:
            message = "the outcome is no longer kept, or the disk lost it; submit the job under a new id"
            self._outbox.failure(Failure(job_id, FailureCode.INTERNAL, message))
        elif outcome.failure:
            self._outbox.failure(Failure(job_id, outcome.failure, outcome.message))
        else:
            self._outbox.result(Result(job_id, outcome.meta, outcome.payload))

    def _tell_activation(self, note: Activation) -> None:
        if note.is_end:
            self._activating = False
        if self._outbox is None or note.session != self._session:
            return
        if not note.is_end:
            self._outbox.activation_progress(note.request, note.stage, note.done, note.of)
        elif note.error is None:
            self._outbox.activated(note.request, note.bundle_id)
        else:
            refused = refusal(note.error)
            self._outbox.refuse(note.request, refused.code, refused.what)

    def _repeat(self, job_id: str, request: bytes) -> None:
        """A job that is known already: nothing starts; its end, if it has one, is said again."""
        if not self._journal.same(job_id, request):
            raise JobRejected(
                "the id belongs to another job", where=f"job {job_id}", mend="give every job an id of its own"
            )
        if job_id not in self._under_way:
            self._leave(Ended(job_id))
