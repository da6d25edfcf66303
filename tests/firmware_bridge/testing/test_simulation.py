import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from firmware_bridge.jobs import JobRequest
from firmware_bridge.testing.disk import MemoryDisk
from firmware_bridge.testing.simulation import Scenario, simulate
from firmware_bridge.testing.simulation.model import DiskDevice, DiskMachine
from firmware_bridge.testing.simulation.scenario import Trouble

SEEDS = 300
BATCH = 10


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_no_seed_breaks_a_promise(first: int) -> None:
    for seed in range(first, first + BATCH):
        outcome = simulate(DiskMachine(), seed)
        again = f"replay: python -m firmware_bridge.testing simulate --seed {seed}"
        assert not outcome.violations, f"{again}\n" + "\n".join(outcome.violations)


def test_a_seed_is_the_same_run_in_every_process() -> None:
    runs = []
    for hashing in ("1", "2"):
        command = [sys.executable, "-m", "firmware_bridge.testing", "simulate", "--seed", "27"]
        environment = {**os.environ, "PYTHONHASHSEED": hashing}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        runs.append(run.stdout.splitlines()[0])
    assert runs[0] == runs[1]
    assert "boots" in runs[0]


def test_scenarios_differ_and_hold_every_trouble() -> None:
    drawn = [Scenario.draw(seed) for seed in range(100)]
    assert len({repr(each) for each in drawn}) == 100
    assert {event.trouble for each in drawn for event in each.events} == set(Trouble)


# What the simulation must find: devices that break a promise in a way that real ones have.


class _Forgetful(DiskDevice):
    """Says that it has a job before the job is on the disk."""

    def _record(self, what: str, job_id: str) -> None:
        sync, self._disk.sync = self._disk.sync, lambda _name: None  # type: ignore[method-assign]
        try:
            super()._record(what, job_id)
        finally:
            self._disk.sync = sync  # type: ignore[method-assign]


class _Repeating(DiskDevice):
    """Runs a job again that it has run."""

    def submit(self, job: JobRequest) -> None:
        self._known.pop(job.job_id, None)
        super().submit(job)


class _Credulous(DiskDevice):
    """Makes any bundle the active one, tested or not."""

    def activate(self, request: int, bundle_id: str, release: bytes) -> None:
        self._write_file("active", bundle_id.encode())
        super().activate(request, bundle_id, release)


class _Muddled(DiskDevice):
    """Mixes up results."""

    def _say(self, job_id: str) -> None:
        super()._say(min(self._disk.names("ends"), default=job_id))


def _machine(kind: type[DiskDevice]) -> DiskMachine:
    class Broken(DiskMachine):
        def boot(self, disk: MemoryDisk, boot_id: str, _clock: Callable[[], float]) -> DiskDevice:
            return kind(disk, boot_id)

    return Broken()


@pytest.mark.parametrize("kind", [_Forgetful, _Repeating, _Credulous, _Muddled])
def test_a_device_that_breaks_a_promise_is_found(kind: type[DiskDevice]) -> None:
    assert any(simulate(_machine(kind), seed).violations for seed in range(60))
