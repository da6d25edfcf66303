"""The host's queue on a real file: order, exactly one effect, other attempts, leases, backpressure, other processes."""

import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from firmware_bridge.errors import LocalProtocolError
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import Failure, Result
from firmware_bridge.queue.errors import QueueFault, QueueFull
from firmware_bridge.queue.queue import MAX_ATTEMPTS, JobQueue, queue_id
from firmware_bridge.queue.records import Limits, NewJob, State, Stuck
from firmware_bridge.wire.messages import FailureCode


class Clock:
    """Unix seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> JobQueue:
    return JobQueue(tmp_path / "queue.db", clock=clock)


def job(label: str = "", **more: object) -> NewJob:
    return NewJob("generate", {"seed": 1}, b"image", label, **more)  # type: ignore[arg-type]


def info(device_id: str, bundle: str | None = None) -> DeviceInfo:
    return DeviceInfo("test/1", device_id, "boot", "rpi5", {}, 2, 64, 1, 1, bundle)


def test_jobs_are_claimed_by_priority_then_age(queue: JobQueue) -> None:
    jobs = [job("first"), job("second"), job("urgent", priority=9)]
    queue.add(jobs)
    claimed = queue.turn("a", None, 2)
    assert [each.job_id for each in claimed] == [jobs[2].job_id, jobs[0].job_id]
    assert (claimed[0].kind, claimed[0].params, claimed[0].payload) == ("generate", {"seed": 1}, b"image")
    assert claimed[0].priority == 9
    assert queue.turn("b", None, 5)[0].job_id == jobs[1].job_id
    assert queue.turn("c", None, 5) == []
    assert queue.counts()[State.HELD] == 3


def test_an_outcome_is_there_after_the_process_is_gone(queue: JobQueue) -> None:
    queue.add([one := job("part 7")])
    queue.turn("a", None, 1)
    queue.turn("a", None, 0, [Result(one.job_id, {"score": 0.5}, b"picture")])
    script = (
        "import sys; from pathlib import Path; from firmware_bridge.queue.queue import JobQueue\n"
        f"print(JobQueue(Path(sys.argv[1])).outcome({one.job_id!r}))"
    )
    told = subprocess.run([sys.executable, "-c", script, str(queue.path)], capture_output=True, text=True, check=True)
    assert "part 7" in told.stdout
    assert "b'picture'" in told.stdout
    outcome = queue.outcome(one.job_id)
    assert outcome is not None
    assert (outcome.state, outcome.meta, outcome.code) == (State.DONE, {"score": 0.5}, None)
    queue.drop([one.job_id])
    assert queue.outcome(one.job_id) is None
    assert queue.jobs() == []


def test_a_second_end_of_a_job_has_no_effect(queue: JobQueue) -> None:
    queue.add([one := job()])
    queue.turn("a", None, 1)
    queue.turn("a", None, 0, [Result(one.job_id, {}, b"1"), Result(one.job_id, {}, b"2")])
    queue.turn("b", None, 0, [Failure(one.job_id, FailureCode.INTERNAL, "late")])
    outcome = queue.outcome(one.job_id)
    assert outcome is not None
    assert outcome.payload == b"1"


def test_a_failure_that_may_pass_is_tried_again_as_another_job_to_the_device(queue: JobQueue) -> None:
    queue.add([one := job()])
    wire_ids = []
    for _ in range(MAX_ATTEMPTS):
        (claimed,) = queue.turn("a", None, 1)
        wire_ids.append(claimed.job_id)
        queue.turn("a", None, 0, [Failure(claimed.job_id, FailureCode.ENGINE_DIED, "killed by signal 9")])
    assert len(set(wire_ids)) == MAX_ATTEMPTS
    assert {queue_id(wire) for wire in wire_ids} == {one.job_id}
    outcome = queue.outcome(one.job_id)
    assert outcome is not None
    assert (outcome.state, outcome.message) == (State.FAILED, "killed by signal 9")


def test_a_failure_that_is_the_jobs_fault_is_final(queue: JobQueue) -> None:
    queue.add([one := job()])
    queue.turn("a", None, 1)
    queue.turn("a", None, 0, [Failure(one.job_id, FailureCode.BAD_INPUT, "16x16, not 64x64")])
    assert queue.jobs(State.FAILED)[0].job_id == one.job_id


def test_a_device_that_is_not_seen_loses_its_jobs_after_a_lease(queue: JobQueue, clock: Clock) -> None:
    queue.add([one := job()])
    queue.seen(info("a"), "/dev/ttyUSB0")
    queue.turn("a", None, 1)
    clock.now += 50
    assert queue.reclaim(60) == 0
    queue.seen(info("a"), "/dev/ttyUSB0")
    clock.now += 50
    assert queue.reclaim(60) == 0
    clock.now += 50
    assert queue.reclaim(60) == 1
    (again,) = queue.turn("b", None, 1)
    assert queue_id(again.job_id) == one.job_id
    queue.turn("a", None, 0, [Failure(one.job_id, FailureCode.LOST, "it is with b now")])
    assert queue.counts()[State.HELD] == 1
    queue.turn("b", None, 0, [Result(again.job_id, {}, b"of b")])
    outcome = queue.outcome(one.job_id)
    assert outcome is not None
    assert outcome.payload == b"of b"


def test_after_a_restart_a_device_is_asked_for_what_it_holds(queue: JobQueue) -> None:
    queue.add([job(), job()])
    held = queue.turn("a", None, 1)
    queue.close()
    with JobQueue(queue.path) as again:
        assert again.held("a") == held
        assert again.held("b") == []
        again.give_back("a", [held[0].job_id])
        assert again.held("a") == []
        assert again.counts()[State.WAITING] == 2


def test_a_job_may_name_its_device_and_its_bundle(queue: JobQueue) -> None:
    queue.add([mine := job(device="a"), theirs := job(bundle="ff")])
    assert queue.turn("b", None, 9) == []
    assert [each.job_id for each in queue.turn("b", "ff", 9)] == [theirs.job_id]
    assert [each.job_id for each in queue.turn("a", "00", 9)] == [mine.job_id]


def test_a_deadline_passes_before_or_goes_along(queue: JobQueue, clock: Clock) -> None:
    queue.add([late := job(deadline=clock.now + 5), job(deadline=clock.now + 50)])
    clock.now += 10
    (claimed,) = queue.turn("a", None, 9)
    assert claimed.deadline == pytest.approx(40)
    outcome = queue.outcome(late.job_id)
    assert outcome is not None
    assert outcome.code == FailureCode.DEADLINE


def test_cancelling(queue: JobQueue) -> None:
    queue.add([waiting := job("w"), held := job("h", priority=1)])
    queue.turn("a", None, 1)
    assert queue.cancel(waiting.job_id) is State.CANCELLED
    assert queue.cancel(held.job_id) is State.HELD
    assert queue.cancelling("a") == [held.job_id]
    queue.turn("a", None, 0, [Failure(held.job_id, FailureCode.LOST, "no attempt follows a cancelled one")])
    assert queue.cancelling("a") == []
    assert queue.cancel(held.job_id) is State.FAILED
    with pytest.raises(QueueFault, match="no such job") as caught:
        queue.cancel("nothing")
    assert caught.value.exit_code == 13


def test_a_full_queue_makes_its_producer_wait(tmp_path: Path) -> None:
    with JobQueue(tmp_path / "q.db", Limits(jobs=2)) as queue:
        queue.add([job(), job()])
        with pytest.raises(QueueFull):
            queue.add([job()])
        assert queue.counts()[State.WAITING] == 2
        (claimed,) = queue.turn("a", None, 1)
        timer = threading.Timer(0.1, queue.turn, ("a", None, 0, [Result(claimed.job_id, {}, b"")]))
        timer.start()
        queue.add([job()], wait=20)
        timer.join()
    with JobQueue(tmp_path / "r.db", Limits(payload_bytes=8)) as queue, pytest.raises(QueueFull):
        queue.add([job(), job()])


def test_waiting_ends_when_another_process_changes_the_queue(queue: JobQueue) -> None:
    with JobQueue(queue.path) as other:
        timer = threading.Timer(0.1, other.add, ([job()],))
        timer.start()
        assert queue.wait(20)
        timer.join()
    assert not queue.wait(0.05)


def test_what_is_no_job_is_refused(queue: JobQueue) -> None:
    with pytest.raises(LocalProtocolError, match="UUID"):
        queue.add([job(job_id="part.7")])
    with pytest.raises(LocalProtocolError, match="payload"):
        queue.add([NewJob("inspect", {}, bytes(64 * 2**20 + 1))])


def test_a_file_that_is_no_queue_is_refused(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"this is not a database, however long it may be" * 99)
    with pytest.raises(QueueFault, match="damaged"):
        JobQueue(garbage)
    newer = tmp_path / "newer.db"
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(QueueFault, match="version 99"):
        JobQueue(newer)


def test_killed_at_any_moment_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    """A host that is killed over and over, while it records ends and claims jobs: every job ends once."""
    path = tmp_path / "queue.db"
    with JobQueue(path) as queue:
        queue.add([job(str(number)) for number in range(300)])
    script = (
        "import sys; from pathlib import Path\n"
        "from firmware_bridge.queue.queue import JobQueue\nfrom firmware_bridge.jobs import Result\n"
        "queue = JobQueue(Path(sys.argv[1])); held = queue.held('a')\n"
        "while True:\n"
        "    held = queue.turn('a', None, 3, [Result(each.job_id, {}, each.job_id.encode()) for each in held])\n"
        "    print(len(held), flush=True)\n"
    )
    for kill in range(8):
        process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(3 + kill):
            process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()
    with JobQueue(path) as queue:
        held = queue.held("a")
        while held or queue.counts()[State.WAITING]:
            held = queue.turn("a", None, 50, [Result(each.job_id, {}, each.job_id.encode()) for each in held])
        assert queue.counts() == {**dict.fromkeys(State, 0), State.DONE: 300}
        for record in queue.jobs(limit=1000):
            outcome = queue.outcome(record.job_id)
            assert outcome is not None
            assert outcome.payload == record.job_id.encode()


class QueueModel(RuleBasedStateMachine):
    """The queue beside a dictionary: whatever order things happen in, each job ends once, with its first end."""

    added = Bundle("added")

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.queue = JobQueue(Path(self.folder.name) / "q.db", clock=self.clock)
        self.ends: dict[str, bytes | int | None] = {}
        self.held: dict[str, dict[str, str]] = {"a": {}, "b": {}}

    def teardown(self) -> None:
        self.queue.close()
        self.folder.cleanup()

    @rule(target=added, priority=st.integers(0, 3))
    def add(self, priority: int) -> str:
        new = job(priority=priority)
        self.queue.add([new])
        self.ends[new.job_id] = None
        return new.job_id

    @rule(device=st.sampled_from("ab"), room=st.integers(0, 3))
    def claim(self, device: str, room: int) -> None:
        for claimed in self.queue.turn(device, None, room):
            assert self.ends[queue_id(claimed.job_id)] is None
            self.held[device][queue_id(claimed.job_id)] = claimed.job_id

    @rule(device=st.sampled_from("ab"), job_id=added)
    def finish(self, device: str, job_id: str) -> None:
        if wire := self.held[device].get(job_id):
            self.queue.turn(device, None, 0, [Result(wire, {}, device.encode())])
            if self.ends[job_id] is None:
                self.ends[job_id] = device.encode()

    @rule(device=st.sampled_from("ab"))
    def reopen(self, device: str) -> None:
        self.queue.close()
        self.queue = JobQueue(self.queue.path, clock=self.clock)
        held = {queue_id(each.job_id): each.job_id for each in self.queue.held(device)}
        assert held.items() <= self.held[device].items()

    @rule(device=st.sampled_from("ab"))
    def lease_runs_out(self, device: str) -> None:
        self.clock.now += 1000
        other = "b" if device == "a" else "a"
        self.queue.seen(info(other), "port")
        self.queue.reclaim(60)
        assert self.queue.held(device) == []

    @rule(job_id=added)
    def cancel_waiting(self, job_id: str) -> None:
        if self.queue.cancel(job_id) is State.CANCELLED and self.ends[job_id] is None:
            self.ends[job_id] = int(FailureCode.CANCELLED)

    @invariant()
    def every_end_is_the_first(self) -> None:
        for job_id, end in self.ends.items():
            outcome = self.queue.outcome(job_id)
            if end is None:
                assert outcome is None
            else:
                assert outcome is not None
                assert end == (outcome.payload if outcome.code is None else outcome.code)


TestQueueModel = QueueModel.TestCase
TestQueueModel.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)


def test_turns_of_idle_devices_do_not_rouse_each_other(queue: JobQueue) -> None:
    roused = []
    watcher = threading.Thread(target=lambda: roused.append(queue.wait(0.3)))
    watcher.start()
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        assert queue.turn("a", None, 1) == []
    watcher.join()
    assert roused == [False]


def test_jobs_that_no_device_may_take_are_named(queue: JobQueue) -> None:
    queue.add([job(), job(bundle="ab" * 32), job(bundle="ab" * 32), job(device="b"), job(device="a", bundle="cd" * 32)])
    assert [each.jobs for each in queue.stuck()] == [2, 1, 1]
    queue.seen(info("a", "ab" * 32), "/dev/a")
    assert queue.stuck() == [Stuck("a", "cd" * 32, 1), Stuck("b", None, 1)]
    queue.seen(info("b"), "/dev/b")
    queue.seen(info("a", "cd" * 32), "/dev/a")
    (rolled_back,) = queue.stuck()  # the device went back to another bundle than the jobs are for
    assert str(rolled_back) == "2 jobs wait for bundle abababababab, which is not here"


def test_a_job_ended_by_a_rollback_waits_for_its_bundle_as_another_attempt(queue: JobQueue) -> None:
    queue.add([one := job(bundle="ab" * 32), two := job()])
    assert len(queue.turn("a", "ab" * 32, 5)) == 2
    ends = [Failure(each.job_id, FailureCode.BUNDLE_CHANGED, "fell back") for each in (one, two)]
    (again,) = queue.turn("a", "cd" * 32, 5, ends)
    assert again.job_id == f"{two.job_id}.1"
    assert queue.turn("a", "ab" * 32, 5)[0].job_id == f"{one.job_id}.1"
