"""Jobs through the scheduler and a real child engine: order, fairness, cancelling, death and recovery."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from boards.errors import KitError
from edge.device.engine import EngineResult, StepReport
from edge.device.engine_process import EngineCommand, EngineProcess
from edge.device.errors import Busy, EngineDied, EngineRefused, JobCancelled, JobExpired
from edge.device.job import Job, Totals
from edge.device.scheduler import Scheduler
from edge.device.snapshots import Snapshot

if TYPE_CHECKING:
    from .conftest import CommandMaker


class Record:
    """A listener that remembers, and can be waited for."""

    def __init__(self) -> None:
        self.begins: list[str] = []
        self.steps: list[tuple[str, int]] = []
        self.snapshots: dict[str, list[Snapshot]] = {}
        self.results: dict[str, tuple[EngineResult, Totals]] = {}
        self.errors: dict[str, KitError] = {}
        self.on_step: Callable[[Job, StepReport], None] = lambda _job, _report: None
        self._changed = threading.Condition()

    def begun(self, job: Job) -> None:
        self.begins.append(job.job_id)

    def kept(self, job: Job, snapshot: Snapshot) -> None:
        self.snapshots.setdefault(job.job_id, []).append(snapshot)

    def progressed(self, job: Job, report: StepReport) -> None:
        self.steps.append((job.job_id, report.step))
        self.on_step(job, report)

    def finished(self, job: Job, result: EngineResult, totals: Totals) -> None:
        with self._changed:
            self.results[job.job_id] = (result, totals)
            self._changed.notify()

    def failed(self, job: Job, error: KitError) -> None:
        with self._changed:
            self.errors[job.job_id] = error
            self._changed.notify()

    def wait(self, *job_ids: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: all(j in self.results or j in self.errors for j in job_ids), 30)


@contextmanager
def scheduling(
    command: EngineCommand, record: Record, limit: int = 64, snapshot_seconds: float = 3600.0
) -> Iterator[Scheduler]:
    scheduler = Scheduler(lambda: EngineProcess(command), record, limit, snapshot_seconds)
    scheduler.start()
    try:
        yield scheduler
    finally:
        scheduler.stop()


def alone(command: EngineCommand, *jobs: Job) -> dict[str, bytes]:
    """Each job's image when it has the engine for itself."""
    images = {}
    for job in jobs:
        record = Record()
        with scheduling(command, record) as scheduler:
            scheduler.submit(job)
            record.wait(job.job_id)
        images[job.job_id] = record.results[job.job_id][0].image
    return images


def paused(scheduler: Scheduler) -> threading.Event:
    """Hold the scheduler's thread in a task until the event is set, so that what follows arrives together."""
    gate = threading.Event()
    scheduler.call(lambda: gate.wait(30) and None)
    return gate


def test_jobs_interleave_step_by_step_and_get_the_bits_they_get_alone(toy_command: CommandMaker) -> None:
    command = toy_command()
    jobs = Job("a", 1), Job("b", 2)
    record = Record()
    with scheduling(command, record) as scheduler:
        gate = paused(scheduler)
        for job in jobs:
            scheduler.submit(job)
        gate.set()
        record.wait("a", "b")
    assert record.steps == [(name, step) for step in range(5) for name in "ab"]
    images = {name: result.image for name, (result, _) in record.results.items()}
    assert images == alone(command, *jobs)
    assert images["a"] != images["b"]
    totals = record.results["a"][1]
    assert (totals.passes, totals.residual_passes, totals.nanoseconds) == (50, 5, [1000] * 5)
    assert totals.peak_rss == 5_000_000


def test_more_jobs_than_slots_end_in_order_of_arrival(toy_command: CommandMaker) -> None:
    record = Record()
    names = [f"job-{n}" for n in range(7)]
    with scheduling(toy_command(), record) as scheduler:
        for seed, name in enumerate(names):
            scheduler.submit(Job(name, seed))
        record.wait(*names)
    assert list(record.results) == names


def test_a_job_waits_for_memory_that_another_holds(toy_command: CommandMaker) -> None:
    record = Record()
    with scheduling(toy_command(budget=1500), record) as scheduler:
        gate = paused(scheduler)
        scheduler.submit(Job("a", 1))
        scheduler.submit(Job("b", 2))
        gate.set()
        record.wait("a", "b")
    assert record.steps == [(name, step) for name in "ab" for step in range(5)]


def test_a_job_that_can_never_fit_fails_and_the_next_runs(toy_command: CommandMaker) -> None:
    record = Record()
    with scheduling(toy_command(budget=500), record) as scheduler:
        scheduler.submit(Job("a", 1))
        record.wait("a")
    error = record.errors["a"]
    assert isinstance(error, EngineRefused)
    assert error.code == EngineRefused.OUT_OF_MEMORY


def test_a_refused_input_harms_nobody_else(toy_command: CommandMaker) -> None:
    record = Record()
    with scheduling(toy_command(), record) as scheduler:
        scheduler.submit(Job("good", 1))
        scheduler.submit(Job("bad", 1, image=bytes(3)))
        scheduler.submit(Job("next", 1))
        record.wait("good", "bad", "next")
    assert set(record.results) == {"good", "next"}
    assert isinstance(record.errors["bad"], EngineRefused)


def test_the_queue_has_a_limit(toy_command: CommandMaker) -> None:
    record = Record()
    with scheduling(toy_command(), record, limit=2) as scheduler:
        gate = paused(scheduler)
        while scheduler._queue:  # until the task has left the queue
            pass
        scheduler.submit(Job("a", 1))
        scheduler.submit(Job("b", 1))
        with pytest.raises(Busy, match="2 jobs wait"):
            scheduler.submit(Job("c", 1))
        gate.set()
        record.wait("a", "b")


def test_cancelling_a_running_job_frees_its_slot(toy_command: CommandMaker) -> None:
    record = Record()
    with scheduling(toy_command(steps=1000, slow=0.01), record) as scheduler:
        record.on_step = lambda job, report: scheduler.cancel(job.job_id) if report.step == 3 else None
        scheduler.submit(Job("a", 1))
        record.wait("a")
        assert isinstance(record.errors["a"], JobCancelled)
        assert "after 4 steps" in str(record.errors["a"])
        scheduler.submit(Job("b", 1))
        scheduler.submit(Job("c", 1))
        record.wait("b", "c")
    assert all(isinstance(record.errors[name], JobCancelled) for name in "bc")


def test_cancelling_a_queued_job(toy_command: CommandMaker) -> None:
    record = Record()
    with scheduling(toy_command(), record) as scheduler:
        gate = paused(scheduler)
        for name in "abc":
            scheduler.submit(Job(name, 1))
        scheduler.cancel("b")
        scheduler.cancel("unknown")
        gate.set()
        record.wait("a", "b", "c")
    assert set(record.results) == {"a", "c"}
    assert "before it began" in str(record.errors["b"])


def test_an_engine_killed_in_mid_job_fails_its_jobs_and_the_next_succeeds(
    toy_command: CommandMaker, tmp_path: Path
) -> None:
    once = str(tmp_path / "once")
    command = toy_command(misbehave={"at": "step 2", "how": "die", "once": once})
    record = Record()
    with scheduling(command, record) as scheduler:
        gate = paused(scheduler)
        for name in "abc":
            scheduler.submit(Job(name, 1))
        gate.set()
        record.wait("a", "b", "c")
    assert all(isinstance(record.errors[name], EngineDied) for name in "ab")
    assert set(record.results) == {"c"}


def test_an_engine_killed_while_idle_costs_no_job(toy_command: CommandMaker) -> None:
    import os
    import signal

    record = Record()
    pids: list[int] = []

    with scheduling(toy_command(), record) as scheduler:
        scheduler.submit(Job("a", 1))
        record.wait("a")
        assert scheduler._engine is not None
        pids.append(scheduler._engine.pid)
        os.kill(pids[0], signal.SIGKILL)
        scheduler.submit(Job("b", 1))
        record.wait("b")
        assert scheduler._engine.pid != pids[0]
    assert record.results["a"][0] == record.results["b"][0]


def test_an_engine_that_cannot_start_fails_the_job_not_the_thread(toy_command: CommandMaker, tmp_path: Path) -> None:
    rule: dict[str, Any] = {"at": "start", "how": "exit", "status": 4, "once": str(tmp_path / "once")}
    record = Record()
    with scheduling(toy_command(misbehave=rule), record) as scheduler:
        scheduler.submit(Job("a", 1))
        scheduler.submit(Job("b", 1))
        record.wait("a", "b")
    assert "operator is missing" in str(record.errors["a"])
    assert "b" in record.results


def test_a_task_runs_between_the_jobs_before_and_after_it(toy_command: CommandMaker) -> None:
    record = Record()
    seen: list[set[str]] = []
    with scheduling(toy_command(), record) as scheduler:
        scheduler.submit(Job("a", 1))
        scheduler.call(lambda: seen.append(set(record.results)))
        scheduler.submit(Job("b", 1))
        record.wait("a", "b")
    assert seen == [{"a"}]


def test_jobs_of_a_higher_priority_begin_first(toy_command: CommandMaker) -> None:
    record = Record()
    with scheduling(toy_command(slots=1), record) as scheduler:
        gate = paused(scheduler)
        for name, priority in (("a", 0), ("b", 5), ("c", 9), ("d", 5)):
            scheduler.submit(Job(name, 1, priority=priority))
        gate.set()
        record.wait(*"abcd")
    assert record.begins == ["c", "b", "d", "a"]


def test_a_priority_does_not_pass_a_task(toy_command: CommandMaker) -> None:
    record = Record()
    ran: list[list[str]] = []
    with scheduling(toy_command(slots=1), record) as scheduler:
        gate = paused(scheduler)
        scheduler.submit(Job("a", 1))
        scheduler.submit(Job("b", 1))
        scheduler.call(lambda: ran.append(list(record.results)))
        scheduler.submit(Job("c", 1, priority=9))
        gate.set()
        record.wait(*"abc")
    assert ran == [["a", "b"]]
    assert record.begins == ["a", "b", "c"]


def test_a_job_ends_with_its_deadline(toy_command: CommandMaker) -> None:
    record = Record()
    with scheduling(toy_command(slots=1, steps=1000, slow=0.005), record) as scheduler:
        gate = paused(scheduler)
        scheduler.submit(Job("running", 1, deadline=time.monotonic() + 0.5))
        scheduler.submit(Job("waiting", 1, deadline=time.monotonic() - 1))
        gate.set()
        record.wait("running", "waiting")
        scheduler.submit(Job("next", 1, start=998, deadline=time.monotonic() + 3600))
        record.wait("next")
    assert all(isinstance(record.errors[name], JobExpired) for name in ("running", "waiting"))
    assert "steps" in str(record.errors["running"])
    assert "before it began" in str(record.errors["waiting"])
    assert set(record.results) == {"next"}


def test_a_job_goes_on_from_a_snapshot_with_the_bits_of_one_that_was_not_interrupted(toy_command: CommandMaker) -> None:
    command = toy_command(claims=2 * 10**9)
    record = Record()
    with scheduling(command, record, snapshot_seconds=3.0) as scheduler:
        scheduler.submit(Job("whole", 1))
        record.wait("whole")
    kept = record.snapshots["whole"]
    assert [len(snapshot.totals["nanoseconds"]) for snapshot in kept] == [2, 4]  # every two steps of two seconds
    again = Record()
    with scheduling(command, again) as scheduler:
        scheduler.submit(Job("again", 1, snapshot=kept[0]))
        again.wait("again")
    assert again.steps == [("again", step) for step in (2, 3, 4)]
    (result, totals), (whole, all_of_it) = again.results["again"], record.results["whole"]
    assert result == whole
    assert totals.resumed_at == 2
    assert all_of_it.resumed_at is None
    assert (totals.passes, totals.nanoseconds) == (all_of_it.passes, all_of_it.nanoseconds)


def test_a_snapshot_that_costs_more_than_it_saves_is_not_taken_again(toy_command: CommandMaker) -> None:
    record = Record()
    command = toy_command(steps=12, claims=2 * 10**6, misbehave={"at": "snapshot", "how": "pause", "seconds": 0.3})
    with scheduling(command, record, snapshot_seconds=0.003) as scheduler:
        scheduler.submit(Job("a", 1))
        record.wait("a")
    assert len(record.snapshots["a"]) == 1  # 22 ms of steps are left, a twentieth of what it took


def test_a_snapshot_of_another_program_is_refused_and_the_job_begins_anew(toy_command: CommandMaker) -> None:
    record = Record()
    with scheduling(toy_command(), record) as scheduler:
        scheduler.submit(Job("a", 1, snapshot=Snapshot({}, b'{"of": "another"}')))
        record.wait("a")
    assert record.steps == [("a", step) for step in range(5)]
    assert record.results["a"][1].resumed_at is None


def test_an_engine_without_snapshots_runs_jobs_all_the_same(toy_command: CommandMaker) -> None:
    record = Record()
    command = toy_command(claims=10**10, misbehave={"at": "snapshot", "how": "refuse"})
    with scheduling(command, record) as scheduler:
        scheduler.submit(Job("a", 1))
        record.wait("a")
    assert record.snapshots == {}
    assert set(record.results) == {"a"}
