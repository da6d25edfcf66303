"""The scheduler against a reference model: jobs of all priorities come, are cancelled, and engines die, at any time."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from boards.errors import KitError
from edge.device.engine import EngineResult, StepReport
from edge.device.errors import EngineDied, EngineRefused, JobCancelled, JobExpired
from edge.device.job import Job, Totals
from edge.device.scheduler import Scheduler
from edge.device.snapshots import Snapshot

STEPS = 8


class Engine:
    """An engine without a process: counts steps a slot, holds as many states as its memory allows, and may be dead."""

    def __init__(self, slots: int, memory: int) -> None:
        self.info: Any = type("Info", (), {"slots": slots})
        self.pid = 1
        self.memory_slots = memory
        self.is_dead = False
        self.steps: dict[int, int] = {}

    def begin(self, slot: int, _seed: int, start: int, *_: object) -> None:
        self._check()
        if len(self.steps.keys() | {slot}) > self.memory_slots:
            raise EngineRefused(EngineRefused.OUT_OF_MEMORY, "the state budget is spent")
        self.steps[slot] = start

    def step(self, slot: int) -> StepReport:
        self._check()
        self.steps[slot] += 1
        return StepReport(self.steps[slot] - 1, STEPS - self.steps[slot], 1, 1, 0, 1, 0)

    def result(self, slot: int) -> EngineResult:
        self._check()
        return EngineResult(b"image of %d" % slot, b"", None)

    def memory(self) -> tuple[int, int]:
        self._check()
        return 1, 1

    def release(self, slot: int) -> None:
        self._check()
        self.steps.pop(slot, None)

    def close(self) -> None:
        self.is_dead = True

    def _check(self) -> None:
        if self.is_dead:
            raise EngineDied("it was ended by SIGKILL")


class SchedulerModel(RuleBasedStateMachine):
    """Drives the scheduler turn by turn, without its thread."""

    @initialize(slots=st.integers(1, 3), memory=st.integers(1, 3))
    def begin_with(self, slots: int, memory: int) -> None:
        self.slots, self.memory = slots, memory
        self.engines: list[Engine] = []
        self.now = 1.0
        self.scheduler = Scheduler(self.start_engine, self, queue_limit=100, clock=lambda: self.now)  # type: ignore[arg-type]
        self.numbers = itertools.count()
        self.waiting: dict[str, tuple[int, int]] = {}  # job: (-priority, arrival), up to the first task
        self.started: set[str] = set()
        self.running: dict[str, int] = {}  # job: steps
        self.ends: dict[str, str] = {}
        self.cancelled: set[str] = set()
        self.tasks: list[tuple[int, set[str]]] = []  # (arrival, jobs that came before)

    def start_engine(self) -> Any:  # noqa: ANN401  it stands in for a process
        self.engines.append(Engine(self.slots, self.memory))
        return self.engines[-1]

    # the listener

    def begun(self, job: Job) -> None:
        """May come again for a job that then had to wait for memory."""
        assert job.job_id not in self.ends
        ahead = self.tasks[0][0] if self.tasks else float("inf")
        assert self.waiting[job.job_id][1] < ahead, "a task was due"
        due = [place for each, place in self.waiting.items() if each not in self.started and place[1] < ahead]
        assert all(self.waiting[job.job_id] <= place for place in due), "another job was due"
        self.started.add(job.job_id)

    def kept(self, job: Job, snapshot: Snapshot) -> None:
        raise AssertionError(f"{job.job_id}: no job takes long enough for {snapshot}")

    def progressed(self, job: Job, report: StepReport) -> None:
        if job.job_id in self.waiting:
            del self.waiting[job.job_id]
            self.running[job.job_id] = 0
        self.running[job.job_id] += 1
        assert report.step == self.running[job.job_id] - 1

    def finished(self, job: Job, result: EngineResult, totals: Totals) -> None:
        assert result.image.startswith(b"image")
        assert len(totals.nanoseconds) == STEPS == self.running.pop(job.job_id)
        self.end(job, "well")

    def failed(self, job: Job, error: KitError) -> None:
        if isinstance(error, JobCancelled):
            assert job.job_id in self.cancelled
        elif isinstance(error, JobExpired):
            assert job.deadline is not None
        else:
            assert isinstance(error, EngineDied)
            assert any(engine.is_dead for engine in self.engines)
        self.waiting.pop(job.job_id, None)
        self.running.pop(job.job_id, None)
        self.end(job, type(error).__name__)

    def end(self, job: Job, how: str) -> None:
        assert job.job_id not in self.ends, "a job ends once"
        self.ends[job.job_id] = how

    # what happens

    @rule(priority=st.integers(0, 3), is_late=st.sampled_from([False, False, False, True]))
    def submit(self, priority: int, is_late: bool) -> None:
        number = next(self.numbers)
        job = Job(f"job-{number}", number, priority=priority, deadline=0.0 if is_late else None)
        self.waiting[job.job_id] = (-priority, number)
        self.scheduler.submit(job)

    @rule()
    def task(self) -> None:
        number, before = next(self.numbers), {*self.waiting, *self.running}
        self.tasks.append((number, before))

        def run() -> None:
            assert self.tasks.pop(0) == (number, before)
            assert not self.running, "a task runs alone"
            assert before <= self.ends.keys(), "a task runs after the jobs before it"

        self.scheduler.call(run)

    @precondition(lambda self: self.waiting or self.running)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted({*self.waiting, *self.running})))
        self.cancelled.add(job_id)
        self.scheduler.cancel(job_id)

    @precondition(lambda self: self.engines)
    @rule()
    def kill(self) -> None:
        self.engines[-1].is_dead = True

    @rule(turns=st.integers(1, 2))
    def turn(self, turns: int) -> None:
        for _ in range(turns):
            self.scheduler.turn()

    @invariant()
    def slots_are_bounded_and_jobs_take_turns(self) -> None:
        if hasattr(self, "running"):
            assert len(self.running) <= min(self.slots, self.memory)

    def teardown(self) -> None:
        """When nothing more comes, every job ends."""
        if not hasattr(self, "scheduler"):
            return
        for _ in range(2 * STEPS * (len(self.waiting) + len(self.running) + len(self.tasks) + 1)):
            self.scheduler.turn()
        assert not self.waiting
        assert not self.running
        assert not self.tasks


TestScheduler = SchedulerModel.TestCase
TestScheduler.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("ends", [("cancel", "cancel"), ("late", "late"), ("cancel", "late")])
def test_jobs_that_end_in_an_engine_that_is_dead_end_once(ends: tuple[str, str]) -> None:
    """The first one finds it dead, which ends the others, too."""
    state = SchedulerModel()
    state.begin_with(slots=2, memory=2)
    jobs = [Job(f"job-{i}", i, deadline=None if how == "cancel" else 1.0) for i, how in enumerate(ends)]
    for i, job in enumerate(jobs):
        state.waiting[job.job_id] = (0, i)
        state.scheduler.submit(job)
    state.turn(turns=1)
    assert state.running.keys() == {job.job_id for job in jobs}
    state.kill()
    for job, how in zip(jobs, ends, strict=True):
        if how == "cancel":
            state.cancelled.add(job.job_id)
            state.scheduler.cancel(job.job_id)
    state.now = 2.0
    state.turn(turns=1)
    assert state.ends.keys() == {job.job_id for job in jobs}
    state.teardown()
