"""What the host pays for a small job: a thousand of them, to a device that has nothing to compute."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass

from firmware_bridge.client import Client
from firmware_bridge.jobs import JobRequest, Result, UnderWay, new_job_id
from firmware_bridge.testing.faulty import Faults
from firmware_bridge.testing.ptyline import pty_line


@dataclass(frozen=True)
class Overhead:
    """What the jobs took.

    Args:
        jobs: run.
        cpu_ms: of the host's process, for each job.
        wall_ms: from the first submission to the last result, for each job.
    """

    jobs: int
    cpu_ms: float
    wall_ms: float


def stream(jobs: int, payload: int = 1024, ahead: int = 4) -> Overhead:
    """Run small echo jobs of one step one after the other, a few in flight.

    Args:
        jobs: how many.
        payload: bytes of each job, and of its result.
        ahead: jobs in flight at a time.
    """
    with pty_line(Faults()) as (host_path, device_path):
        command = [sys.executable, "-m", "firmware_bridge.testing", "device", "--port", device_path]
        device = subprocess.Popen(command, stdin=subprocess.PIPE)
        try:
            with Client.open(host_path) as client:
                cpu, wall = time.process_time(), time.monotonic()
                done = _run(client, jobs, bytes(payload), ahead)
                cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        finally:
            device.kill()
            device.wait()
    assert done == jobs
    return Overhead(jobs, 1000 * cpu / jobs, 1000 * wall / jobs)


def _run(client: Client, jobs: int, payload: bytes, ahead: int) -> int:
    waiting = deque(JobRequest(new_job_id(), "echo", {"steps": 1}, payload) for _ in range(jobs))
    done = 0
    while waiting or done < jobs:
        for _ in range(ahead):
            if waiting:
                client.submit(waiting.popleft())
        for event in client.events():
            if isinstance(event, UnderWay):
                continue
            done += isinstance(event, Result)
            if waiting:
                client.submit(waiting.popleft())
    return done
