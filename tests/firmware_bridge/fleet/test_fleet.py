"""Many virtual devices on real ptys, served by one host: fair, fast, hot-pluggable, and nothing done twice."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from firmware_bridge.fleet.fleet import Fleet
from firmware_bridge.jobs import JobEvent, Progress, Result
from firmware_bridge.queue.errors import QueueFault
from firmware_bridge.queue.queue import JobQueue, queue_id
from firmware_bridge.queue.records import NewJob, State
from firmware_bridge.testing.bench import Bench, Order
from firmware_bridge.testing.device import MemoryDevice

STEP = 0.02
"""Seconds that a device takes for a step: it, not the host, is the bottleneck."""


@contextmanager
def devices(count: int, step: Callable[[int], float] = lambda _: STEP) -> Iterator[list[tuple[Bench, MemoryDevice]]]:
    with ExitStack() as stack:
        found = []
        for number in range(count):
            bench = Bench()
            stack.callback(bench.close)
            device = MemoryDevice(
                device_id=f"device-{number}", slots=1, between_steps=lambda _, n=number: time.sleep(step(n))
            )
            bench.start(device)
            found.append((bench, device))
        yield found


def echo(count: int, steps: int = 3) -> list[NewJob]:
    return [NewJob("echo", {"steps": steps}, bytes([number % 256, number // 256])) for number in range(count)]


def finish(queue: JobQueue, jobs: list[NewJob], seconds: float = 60) -> None:
    """Wait until all have ended, and check every result."""
    until = time.monotonic() + seconds
    while sum(queue.counts()[state] for state in (State.WAITING, State.HELD)):
        assert time.monotonic() < until, queue.counts()
        queue.wait(0.5)
    for job in jobs:
        outcome = queue.outcome(job.job_id)
        assert outcome is not None
        assert outcome.state is State.DONE, outcome
        assert outcome.payload == job.payload[::-1]


def started(boards: list[tuple[Bench, MemoryDevice]]) -> Counter[str]:
    return Counter(queue_id(job_id) for _, device in boards for job_id in device.started)


def test_sixteen_devices_share_the_work(tmp_path: Path) -> None:
    with devices(16) as boards, JobQueue(tmp_path / "q.db") as queue:
        queue.add(jobs := echo(160))
        with Fleet(queue, [bench.line.host_path for bench, _ in boards]):
            finish(queue, jobs)
        assert set(started(boards).values()) == {1}
        shares = [len(device.started) for _, device in boards]
        assert min(shares) >= 5
        assert {each.device_id for each in queue.devices()} == {f"device-{number}" for number in range(16)}


def test_a_slow_and_a_dead_device_do_not_slow_the_others(tmp_path: Path) -> None:
    with devices(4, lambda number: 1.0 if number == 0 else STEP) as boards, JobQueue(tmp_path / "q.db") as queue:
        boards[1][0].end(Order.KILL)
        queue.add(jobs := echo(40))
        ended: list[str] = []

        def watch(_info: object, event: JobEvent) -> None:
            if isinstance(event, Result):
                ended.append(event.job_id)

        with Fleet(queue, [bench.line.host_path for bench, _ in boards], watch=watch):
            until = time.monotonic() + 40
            while len(ended) < 35 and time.monotonic() < until:
                time.sleep(0.05)
        assert len(ended) >= 35
        assert len(boards[0][1].started) <= 5
        assert len(jobs) == 40


def test_a_device_that_comes_later_is_found_and_one_that_goes_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = tmp_path / "ports"
    ports.mkdir()
    monkeypatch.setenv("EDGE_PORTS", f"{ports}/*")
    with devices(2) as boards, JobQueue(tmp_path / "q.db") as queue, Fleet(queue, lease=3) as fleet:
        queue.add(jobs := echo(10))
        (ports / "one").symlink_to(boards[0][0].line.host_path)
        finish(queue, jobs)
        (ports / "two").symlink_to(boards[1][0].line.host_path)
        boards[0][0].end(Order.STOP)
        queue.add(more := echo(10))
        finish(queue, more)
        assert boards[1][1].started
        assert {each.port for each in fleet.status()} == {f"{ports}/one", f"{ports}/two"}
        assert len(started(boards)) == 20


def test_a_host_that_restarts_asks_for_what_it_had_and_nothing_runs_twice(tmp_path: Path) -> None:
    with devices(2) as boards, JobQueue(tmp_path / "q.db") as queue:
        ports = [bench.line.host_path for bench, _ in boards]
        queue.add(jobs := echo(30, steps=8))
        for _ in range(3):
            begun = threading.Event()

            def watch(_info: object, event: JobEvent, seen: threading.Event = begun) -> None:
                if isinstance(event, Progress):
                    seen.set()

            with Fleet(queue, ports, watch=watch):
                assert begun.wait(20)
        with Fleet(queue, ports):
            finish(queue, jobs)
        assert set(started(boards).values()) == {1}


def test_the_same_device_on_two_ports_is_served_once(tmp_path: Path) -> None:
    with devices(2) as boards, JobQueue(tmp_path / "q.db") as queue:
        boards[1][1].device_id = "device-0"
        queue.add(jobs := echo(4))
        with Fleet(queue, [bench.line.host_path for bench, _ in boards]) as fleet:
            finish(queue, jobs)
            until = time.monotonic() + 20
            while not any("another port" in each.trouble for each in fleet.status()) and time.monotonic() < until:
                time.sleep(0.05)
            assert [each.device_id for each in fleet.status() if each.device_id] == ["device-0"]
            assert any("another port" in each.trouble for each in fleet.status())


def test_a_queue_is_served_by_one_process(tmp_path: Path) -> None:
    with (
        JobQueue(tmp_path / "q.db") as queue,
        Fleet(queue, []),
        pytest.raises(QueueFault, match="another process"),
        Fleet(queue, []),
    ):
        pass
    with JobQueue(tmp_path / "q.db") as queue, Fleet(queue, []):
        assert queue.counts()[State.WAITING] == 0


def test_cancelling_a_job_that_a_device_has(tmp_path: Path) -> None:
    with devices(1) as boards, JobQueue(tmp_path / "q.db") as queue:
        queue.add(jobs := echo(1, steps=500))
        with Fleet(queue, [boards[0][0].line.host_path]):
            until = time.monotonic() + 20
            while not boards[0][1].started and time.monotonic() < until:
                time.sleep(0.02)
            assert queue.cancel(jobs[0].job_id) is State.HELD
            while queue.outcome(jobs[0].job_id) is None and time.monotonic() < until:
                queue.wait(0.2)
        outcome = queue.outcome(jobs[0].job_id)
        assert outcome is not None
        assert outcome.state is State.CANCELLED
