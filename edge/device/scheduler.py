"""Runs jobs on the engine: round-robin over its slots, one sampler step at a time, in a thread of its own.

The queue holds jobs and tasks. Jobs start as slots come free, those of a higher priority first, else in order of
arrival. A task (an activation) waits until the jobs before it have ended and runs alone. A job whose deadline passes
ends. An engine that dies fails the jobs it held; the next job starts a new one. Long jobs leave snapshots now and then,
where that costs little, and may start from one.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from boards.errors import KitError
from edge.device.errors import Busy, EngineDied, EngineRefused, JobCancelled, JobExpired
from edge.device.job import Job, Listener, Totals
from edge.device.snapshots import Snapshot
from firmware_bridge.limits import PREVIEW_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edge.device.engine import Engine, StepReport

log = logging.getLogger(__name__)

SNAPSHOT_SECONDS = 20.0
"""A job that ends sooner is quicker run again than written down."""
SNAPSHOT_SHARE = 20
"""A snapshot is worth taking when the steps since the last one took this many times as long as it did."""


class Scheduler:
    """One thread that owns the engine.

    Args:
        start_engine: called when a job needs an engine and none runs; may raise a KitError, which fails the job.
        listener: told about every job.
        queue_limit: jobs that may wait, besides those in slots.
        snapshot_seconds: computation between two snapshots of a job, at least.
        clock: seconds, monotonic; deadlines are of it.
    """

    def __init__(
        self,
        start_engine: Callable[[], Engine],
        listener: Listener,
        queue_limit: int = 64,
        snapshot_seconds: float = SNAPSHOT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._snapshot_ns = round(snapshot_seconds * 1e9)
        self._start_engine = start_engine
        self._listener = listener
        self._queue_limit = queue_limit
        self._queue: deque[Job | Callable[[], None]] = deque()
        self._running: dict[int, tuple[Job, Totals]] = {}  # by slot; the thread's own
        self._cancelled: set[str] = set()
        self._engine: Engine | None = None
        self._starved = False  # the job at the queue's head waits until a running one frees its memory
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="scheduler")

    def start(self) -> None:
        """Begin to work, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step under way; jobs that have not ended are not reported. Returns when the engine is gone."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def is_alive(self) -> bool:
        """Whether the thread works; false after ``stop``, or after a fault that is logged."""
        return self._thread.is_alive()

    @property
    def has_work(self) -> bool:
        """Whether a job or a task waits or runs."""
        return bool(self._queue or self._running)

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            Busy: the queue is full.
        """
        with self._changed:
            if len(self._queue) >= self._queue_limit:
                raise Busy(
                    f"{len(self._queue)} jobs wait already", where=f"job {job.job_id}", mend="wait for one to end"
                )
            self._queue.append(job)
            self._changed.notify()

    def call(self, task: Callable[[], None]) -> None:
        """Queue a task that wants the engine's memory for itself; it must not raise. It may use ``replace_engine``."""
        with self._changed:
            self._queue.append(task)
            self._changed.notify()

    def cancel(self, job_id: str) -> None:
        """Stop a job, queued or running, before its next step; unknown and ended jobs are left as they are."""
        with self._changed:
            self._cancelled.add(job_id)
            self._changed.notify()

    def replace_engine(self, engine: Engine | None) -> None:
        """Only from within a task: end the engine that runs, if any, and go on with this one."""
        if self._engine is not None:
            self._engine.close()
        self._engine = engine

    # The thread

    def turn(self) -> None:
        """End what is cancelled or late, start what can start, and run one step of each job: what the thread repeats.

        For whoever drives a scheduler without its thread.
        """
        self._drop_cancelled()
        self._drop_expired()
        self._fill_slots()
        for slot, _, _ in self._each_running():
            self._step(slot)

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self.turn()
        except Exception:
            log.critical("the scheduler has a fault and ends", exc_info=True)
            raise
        finally:
            self.replace_engine(None)

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not (self._stopping or self.has_work):
                self._changed.wait()
            return not self._stopping

    def _each_running(self) -> Iterator[tuple[int, Job, int]]:
        """Slot, job and steps done of each that still runs when its turn comes: an engine that dies takes all."""
        for slot in sorted(self._running):
            if slot in self._running:
                job, totals = self._running[slot]
                yield slot, job, len(totals.nanoseconds)

    def _drop_cancelled(self) -> None:
        with self._changed:
            cancelled, self._cancelled = self._cancelled, set()
            waiting = [each for each in self._queue if isinstance(each, Job) and each.job_id in cancelled]
            for job in waiting:
                self._queue.remove(job)
        for job in waiting:
            self._listener.failed(job, JobCancelled("cancelled before it began", where=f"job {job.job_id}"))
        for slot, job, steps in self._each_running():
            if job.job_id in cancelled:
                self._give_up(slot, JobCancelled(f"cancelled after {steps} steps", where=f"job {job.job_id}"))

    def _drop_expired(self) -> None:
        now = self._clock()
        with self._changed:
            late = [each for each in self._queue if isinstance(each, Job) and _is_late(each, now)]
            for job in late:
                self._queue.remove(job)
        for job in late:
            self._listener.failed(job, JobExpired("its deadline passed before it began", where=f"job {job.job_id}"))
        for slot, job, steps in self._each_running():
            if _is_late(job, now):
                self._give_up(slot, JobExpired(f"its deadline passed after {steps} steps", where=f"job {job.job_id}"))

    def _fill_slots(self) -> None:
        """Start what can start."""
        while True:
            with self._changed:
                if not self._queue or self._stopping:
                    return
                head = self._next()
                if self._running and (self._starved or not isinstance(head, Job) or self._is_full()):
                    return
                self._queue.remove(head)
            if isinstance(head, Job):
                if not self._begin(head):
                    return
            else:
                head()

    def _next(self) -> Job | Callable[[], None]:
        """The job of the highest priority before the first task, the oldest of those; or the task, if it is first."""
        first = self._queue[0]
        if not isinstance(first, Job):
            return first
        best = first
        for each in self._queue:
            if not isinstance(each, Job):
                break
            if each.priority > best.priority:
                best = each
        return best

    def _begin(self, job: Job) -> bool:
        """Put a job into a free slot.

        Returns:
            False when it has to wait until another frees its memory; it is back at the queue's head.
        """
        try:
            self._listener.begun(job)
            engine, slot, totals = self._engine_for(job)
        except EngineRefused as error:
            if error.code == EngineRefused.OUT_OF_MEMORY and self._running:
                log.info("job %s waits for memory", job.job_id)
                self._starved = True
                with self._changed:
                    self._queue.appendleft(job)
                return False
            self._listener.failed(job, error)
            return True
        except KitError as error:
            self._listener.failed(job, error)
            return True
        with self._changed:
            self._running[slot] = (job, totals)
        where = "" if totals.resumed_at is None else f" after step {totals.resumed_at}, from a snapshot"
        log.info("job %s started in slot %d of engine %d%s", job.job_id, slot, engine.pid, where)
        return True

    def _engine_for(self, job: Job) -> tuple[Engine, int, Totals]:
        """An engine with the job begun in it, the slot, and what ran of it. An engine found dead is replaced, once."""
        if self._engine is not None:
            slot = self._free_slot(self._engine)
            try:
                totals = _put(self._engine, slot, job)
            except EngineDied as error:
                log.warning("the engine was found dead: %s", error)
                self._bury(error)
            else:
                return self._engine, slot, totals
        self._engine = self._start_engine()
        try:
            totals = _put(self._engine, 0, job)
        except EngineDied as error:
            self._bury(error)
            raise
        return self._engine, 0, totals

    def _is_full(self) -> bool:
        return self._engine is not None and len(self._running) >= self._engine.info.slots

    def _free_slot(self, engine: Engine) -> int:
        return next(slot for slot in range(engine.info.slots) if slot not in self._running)

    def _step(self, slot: int) -> None:
        engine = self._engine
        assert engine is not None
        job, totals = self._running[slot]
        try:
            report = engine.step(slot)
            totals.add(report)
            self._listener.progressed(job, report)
            if report.left:
                self._look(engine, slot, report)
                self._keep(engine, slot)
                return
            result = engine.result(slot)
            totals.peak_rss, totals.state_bytes = engine.memory()
            engine.release(slot)
        except EngineDied as error:
            self._bury(error)
        except EngineRefused as error:
            self._give_up(slot, error)
        else:
            with self._changed:
                del self._running[slot]
            self._starved = False
            self._listener.finished(job, result, totals)

    def _look(self, engine: Engine, slot: int, report: StepReport) -> None:
        """Show the job's image where it is wanted, but not too often."""
        job, totals = self._running[slot]
        now = self._clock()
        if not job.preview_every or (report.step - job.start + 1) % job.preview_every or now < totals.preview_due:
            return
        totals.preview_due = now + PREVIEW_SECONDS
        try:
            self._listener.seen(job, report, engine.look(slot), engine.info.shape)
        except EngineRefused as error:
            totals.preview_due = math.inf
            log.warning("job %s: no previews: %s", job.job_id, error)

    def _keep(self, engine: Engine, slot: int) -> None:
        """Take a snapshot where it is worth its time."""
        job, totals = self._running[slot]
        if totals.since_snapshot_ns < max(self._snapshot_ns, SNAPSHOT_SHARE * totals.snapshot_ns):
            return
        begun = self._clock()
        try:
            self._listener.kept(job, Snapshot(totals.plain(), engine.snapshot(slot)))
        except EngineRefused as error:
            log.warning("job %s: no snapshot: %s", job.job_id, error)
        totals.snapshot_ns, totals.since_snapshot_ns = round((self._clock() - begun) * 1e9), 0

    def _give_up(self, slot: int, error: KitError) -> None:
        """End one job, the engine being well."""
        with self._changed:
            job, _ = self._running.pop(slot)
        self._starved = False
        self._listener.failed(job, error)
        try:
            if self._engine is not None:
                self._engine.release(slot)
        except EngineDied as died:
            self._bury(died)
        except EngineRefused as refused:
            log.warning("slot %d was not released: %s", slot, refused)

    def _bury(self, error: EngineDied) -> None:
        """The engine is dead: so are the jobs in it."""
        self.replace_engine(None)
        with self._changed:
            lost, self._running = self._running, {}
        self._starved = False
        for job, _ in lost.values():
            self._listener.failed(job, error)


def _is_late(job: Job, now: float) -> bool:
    return job.deadline is not None and now > job.deadline


def _put(engine: Engine, slot: int, job: Job) -> Totals:
    """Begin a job in a slot, or go on from its snapshot; what ran of it."""
    if job.snapshot is not None:
        try:
            engine.restore(slot, job.snapshot.state)
        except EngineRefused as error:
            log.warning("job %s: its snapshot is refused, it begins anew: %s", job.job_id, error)
        else:
            return Totals.resumed(job.snapshot.totals)
    engine.begin(slot, job.seed, job.start, job.image, job.image_type, job.conditions)
    return Totals()
