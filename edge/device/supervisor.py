"""The device as the bridge sees it: storage, activation and jobs, joined.

Two threads. The bridge's calls every method here that has no other note, and must never wait long. The scheduler's runs
the engine and activations, writes outcomes to the journal, and leaves notes (``edge.device.relay``), which the bridge's
thread passes on to the host in ``advance``. What a job came to is on disk before the host hears.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from boards.errors import KitError
from edge.bundle import KIT_VERSION
from edge.device.activation import Bundles
from edge.device.answers import failure_code, refusal, words
from edge.device.engine import NOVELTY_LIMIT
from edge.device.errors import Busy, EngineDied, JobRejected, NoActiveBundle, OtherBundle, StorageError
from edge.device.intake import Intake
from edge.device.journal import Journal, Outcome
from edge.device.notes import Activation, Ended, at_time, logged
from edge.device.preview import shrink
from edge.device.recovery import recover
from edge.device.relay import Relay
from edge.device.requests import read_job, request_bytes
from edge.device.scheduler import SNAPSHOT_SECONDS, Scheduler
from edge.device.snapshots import Snapshots
from edge.device.standing import StandingFile
from edge.device.store import Store
from edge.device.trust import Gate
from firmware_bridge.info import PREVIEW, DeviceInfo
from firmware_bridge.jobs import JobRequest, Preview, Progress
from firmware_bridge.limits import MAX_JOBS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from boards import Board
    from edge.device.engine import EngineResult, StepReport
    from edge.device.job import Job, Totals
    from edge.device.snapshots import Snapshot
    from edge.device.standing import Standing
    from edge.device.surroundings import Surroundings
    from firmware_bridge.handler import BlobStore, Outbox

log = logging.getLogger(__name__)

QUEUE_LIMIT = MAX_JOBS
_KEPT_NANOSECONDS = 1000  # steps whose times a result lists one by one; a message takes no more


class Supervisor:
    """Implements ``firmware_bridge.handler.DeviceHandler``.

    Until ``start`` it works only in ``turn``: so a simulation drives it.

    Args:
        board: what this device is.
        on: what it stands on, ``surroundings.this_machine`` for one.
        trust_on_first_use: take the key of the first signed bundle that passes, if no key is trusted here.
        snapshot_seconds: computation between two snapshots of a job, at least.

    Raises:
        OSError: the disk refuses.
    """

    store: BlobStore

    def __init__(
        self,
        board: Board,
        on: Surroundings,
        *,
        trust_on_first_use: bool = False,
        snapshot_seconds: float = SNAPSHOT_SECONDS,
    ) -> None:
        self.board = board
        self._on = on
        self._store = Store(on.disk, board.storage.budget_bytes)
        self.store = Intake(self._store.blobs)
        self._journal = Journal(on.disk, on.clock.unix)
        self._journal_lock = threading.Lock()
        self._snapshots = Snapshots(on.disk)
        self._gate = Gate(on.keys, board.name, takes_first=trust_on_first_use)
        self._bundles = Bundles(self._store, StandingFile(on.disk), self._gate, board=board, start=on.start_engine)
        self._bundles.boot()
        self._under_way: set[str] = set()
        self._begun: set[str] = set()  # those of them that run, or ran until they had to wait for memory
        self._activating = False
        self._relay = Relay(self._outcome, self._settled)
        self._restarts: dict[str, int] = {}  # by job: how often a restart of the device interrupted it
        self._scheduler = Scheduler(self._bundles.start_engine, self, QUEUE_LIMIT, snapshot_seconds, on.clock.monotonic)
        for restarted in recover(self._journal, self._snapshots, *self._bundles.current, on.clock):
            self._restarts[restarted.job.job_id] = restarted.restarts
            self._under_way.add(restarted.job.job_id)
            self._scheduler.submit(restarted.job)

    def start(self) -> None:
        """Begin to work by itself."""
        self._relay.open()
        self._scheduler.start()

    @property
    def has_work(self) -> bool:
        """Whether ``turn`` has something to do."""
        return self._scheduler.has_work

    def turn(self) -> None:
        """A step of each job that runs, or an activation: for whoever drives a supervisor that was not started."""
        self._scheduler.turn()

    def close(self) -> None:
        """End the engine and the scheduler. Jobs under way go on at the next start."""
        self._scheduler.stop()
        with logged("the trial of the active bundle is not settled"):
            self._bundles.closing()
        self._relay.close()
        self._on.release()

    def is_well(self) -> bool:
        """False once the scheduler's thread has ended on a fault of ours: the process had better start anew."""
        return self._scheduler.is_alive()

    # The bridge's calls

    def attach(self, outbox: Outbox) -> None:
        """How to speak to the host."""
        self._relay.attach(outbox)

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
            device_id=self._on.identity.device_id,
            boot_id=self._on.identity.boot_id,
            board=self.board.name,
            versions=versions,
            slots=self.board.slots,
            credits=max(0, QUEUE_LIMIT - len(self._under_way)),
            memory_bytes=self.board.memory.budget_bytes,
            storage_free=self._store.blobs.free(),
            active_bundle=active_id,
            capabilities=(PREVIEW,),
        )

    def session_opened(self) -> None:
        """A host is here; notes for the one before are void."""
        self._relay.session_opened()
        log.info("host connected, session %d", self._relay.session)

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
        note = Activation(request, self._relay.session, bundle_id)
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
            DeviceRefused: BUSY, NO_ACTIVE_BUNDLE, OTHER_BUNDLE, UNSUPPORTED, BAD_INPUT.
        """
        request = request_bytes(job)
        try:
            if self._journal.knows(job.job_id):
                self._repeat(job.job_id, request)
                return
            active = self._bundles.active
            if active is None:
                raise NoActiveBundle("no bundle is active", where=f"job {job.job_id}", mend="deploy one")
            if job.bundle is not None and job.bundle != self._bundles.active_id:
                raise OtherBundle(
                    f"meant for bundle {job.bundle[:12]}, {(self._bundles.active_id or 'none')[:12]} is active",
                    where=f"job {job.job_id}",
                    mend="deploy that bundle, or send the job for any bundle",
                )
            if self._activating:  # else a job checked against one bundle would run in the next
                raise Busy("an activation is under way", where=f"job {job.job_id}", mend="wait for its end")
            ready = read_job(job, active.model, active.sampler.steps)
            deadline = at_time(self._on.clock.monotonic(), job.deadline)
            ready = replace(ready, priority=job.priority, deadline=deadline, preview_every=job.preview_every)
            if len(self._under_way) >= QUEUE_LIMIT:
                raise Busy(f"{len(self._under_way)} jobs are under way", mend="wait for one to end")
            notes = {
                "bundle": self._bundles.active_id,
                "priority": job.priority,
                "deadline": at_time(self._on.clock.unix(), job.deadline),
                "preview_every": job.preview_every,
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
        return self._relay.wake_files()

    def advance(self, now: float) -> float | None:  # noqa: ARG002  nothing here waits for a time
        """Pass the notes on to the host."""
        self._relay.advance()
        return None

    # The scheduler's calls, from its thread

    def begun(self, job: Job) -> None:
        """A job is about to run: from here on, a crash may be its own, or its bundle's."""
        if job.job_id not in self._begun:
            self._begun.add(job.job_id)
            with logged(f"job {job.job_id}: its start is not recorded"), self._journal_lock:
                self._journal.start(job.job_id)
        with logged(f"job {job.job_id}: the bundle's trial is not recorded"):
            self._bundles.job_begins(job.job_id)

    def seen(self, job: Job, report: StepReport, image: bytes, shape: tuple[int, int, int]) -> None:
        """What a job's image looks like."""
        done = report.step - job.start + 1
        self._relay.leave(Preview(job.job_id, done, done + report.left, *shrink(image, shape)))

    def kept(self, job: Job, snapshot: Snapshot) -> None:
        """A job may be continued from here after a restart."""
        with logged(f"job {job.job_id}: its snapshot is not kept"):
            self._snapshots.write(job.job_id, snapshot)

    def progressed(self, job: Job, report: StepReport) -> None:
        """A step ran."""
        done = report.step - job.start + 1
        self._relay.leave(
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
        if result.novelty is not None and result.novelty > NOVELTY_LIMIT:
            log.warning("job %s: its image is unlike what calibration saw (novelty %.1f)", job.job_id, result.novelty)
        meta: dict[str, object] = {
            "score": result.score,
            "novelty": result.novelty,
            "novel": None if result.novelty is None else result.novelty > NOVELTY_LIMIT,
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
        if self._restarts.get(job.job_id):
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
            engine = self._bundles.activate(bundle_id, release, admitted, lambda *at: self._relay.leave(note.at(*at)))
            self._scheduler.replace_engine(engine)
        except KitError as refused:
            error = refused
        except OSError as broken:
            error = StorageError(f"the disk refuses: {broken.strerror}", mend="look at the device's disk")
        if error is not None:
            kept = (self._bundles.active_id or "none")[:12]
            log.error("bundle %s refused: %s; active: %s", bundle_id[:12], error, kept)
        self._relay.leave(replace(note, is_end=True, error=error))

    def _end(self, job_id: str, outcome: Outcome) -> None:
        """Make an outcome durable and leave a note. Where the disk refuses even that, the host is told so instead."""
        self._begun.discard(job_id)
        try:
            with self._journal_lock:
                self._journal.finish(job_id, outcome)
            self._snapshots.drop(job_id)
        except OSError as error:
            log.critical("job %s: the journal cannot be written: %s", job_id, error)
        self._relay.leave(Ended(job_id))

    def _settled(self, note: Ended | Activation) -> None:
        """A job or an activation is over, in the eyes of the bridge's thread too."""
        if isinstance(note, Activation):
            self._activating = False
        else:
            self._under_way.discard(note.job_id)

    def _outcome(self, job_id: str) -> Outcome | None:
        with self._journal_lock:
            return self._journal.outcome(job_id)

    def _repeat(self, job_id: str, request: bytes) -> None:
        """A job that is known already: nothing starts; its end, if it has one, is said again."""
        if not self._journal.same(job_id, request):
            raise JobRejected(
                "the id belongs to another job", where=f"job {job_id}", mend="give every job an id of its own"
            )
        if job_id not in self._under_way:
            self._relay.leave(Ended(job_id))
