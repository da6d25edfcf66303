"""Many devices on one host: how much of their joint speed is left, and what a queued job costs the host.

Devices are processes of their own on real ptys, which sleep through each step: they are the bottleneck, as boards are.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from firmware_bridge.fleet.fleet import Fleet
from firmware_bridge.link.pty import PtyPair
from firmware_bridge.link.serial import open_port
from firmware_bridge.queue.queue import JobQueue
from firmware_bridge.queue.records import NewJob, State
from firmware_bridge.serve import serve
from firmware_bridge.testing.device import MemoryDevice

_SETTLE = 60.0
"""Seconds that devices have to come up."""


@dataclass(frozen=True)
class Throughput:
    """Jobs a second of one device and of ``devices`` together; ``ratio``: how many times the one's."""

    devices: int
    one: float
    all: float
    ratio: float


@dataclass(frozen=True)
class QueuedCost:
    """What a job costs on the host from the queue to its recorded result, in milliseconds of wall and CPU time."""

    jobs: int
    wall_ms: float
    cpu_ms: float


def throughput(devices: int, seconds: float, step: float, steps: int) -> Throughput:
    """Compare ``devices`` devices with one, each for about ``seconds`` of work.

    Args:
        devices: how many.
        seconds: of work for each.
        step: seconds that a step takes.
        steps: of a job.
    """
    each = max(2, round(seconds / (step * steps)))
    one = _rate(1, each, step, steps)
    together = _rate(devices, each * devices, step, steps)
    return Throughput(devices, one, together, together / one)


def queued_cost(jobs: int, payload: int) -> QueuedCost:
    """Stream ``jobs`` jobs of ``payload`` bytes through the queue to a device that takes no time for them."""
    with _running(1, 0.0, slots=16) as (queue, ports):
        queue.add([NewJob("echo", {"steps": 1}, bytes(payload)) for _ in range(jobs)])
        with Fleet(queue, ports):
            _until(queue, lambda counts: counts[State.DONE] > 0)
            begun, cpu, done = time.perf_counter(), time.process_time(), queue.counts()[State.DONE]
            _until(queue, lambda counts: counts[State.DONE] == jobs)
            left = max(1, jobs - done)
            wall, spent = time.perf_counter() - begun, time.process_time() - cpu
    return QueuedCost(jobs, wall / left * 1e3, spent / left * 1e3)


def _rate(devices: int, jobs: int, step: float, steps: int) -> float:
    """Jobs a second, from the moment at which every device has done one."""
    with _running(devices, step, slots=1) as (queue, ports):
        warm = [NewJob("echo", {"steps": steps}, device=f"device-{number}") for number in range(devices)]
        queue.add(warm)
        with Fleet(queue, ports):
            _until(queue, lambda counts: counts[State.DONE] == devices)
            begun = time.perf_counter()
            queue.add([NewJob("echo", {"steps": steps}) for _ in range(jobs)])
            _until(queue, lambda counts: counts[State.DONE] == devices + jobs)
            return jobs / (time.perf_counter() - begun)


def _until(queue: JobQueue, reached: Callable[[dict[State, int]], bool]) -> None:
    until = time.monotonic() + _SETTLE
    before = queue.counts()
    while not reached(counts := queue.counts()):
        if counts != before:
            before, until = counts, time.monotonic() + _SETTLE
        if time.monotonic() > until:
            raise TimeoutError(f"no job ended for {_SETTLE:g} s: {counts}")
        queue.wait(0.05)


@contextmanager
def _running(devices: int, step: float, slots: int) -> Iterator[tuple[JobQueue, list[str]]]:
    """Device processes on ptys and an empty queue."""
    spawn = multiprocessing.get_context("spawn")
    lines = [PtyPair() for _ in range(devices)]
    boards = [
        spawn.Process(target=_be_device, args=(line.device_path, number, step, slots), daemon=True)
        for number, line in enumerate(lines)
    ]
    with tempfile.TemporaryDirectory() as folder, JobQueue(Path(folder) / "queue.db") as queue:
        try:
            for board in boards:
                board.start()
            yield queue, [line.host_path for line in lines]
        finally:
            for board in boards:
                board.terminate()
                board.join()
            for line in lines:
                line.close()


def _be_device(port: str, number: int, step: float, slots: int) -> None:
    device = MemoryDevice(device_id=f"device-{number}", slots=slots, between_steps=lambda _: time.sleep(step))
    with open_port(port) as link:
        serve(link, device)
