"""The power is cut in each disk operation of the real supervisor; here in a part of them, by hand in all."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from edge.device.simulation import Board, SimulatedSupervisor
from firmware_bridge.testing.disk import MemoryDisk
from firmware_bridge.testing.simulation import cut

EVERY = 40


@pytest.mark.parametrize("first", range(1, EVERY, 10))
def test_whatever_operation_is_cut_a_whole_bundle_runs_and_all_jobs_end(first: int) -> None:
    whole = cut(Board(), None, first)
    assert whole.operations > 200
    assert not whole.violations
    boots = 0
    for number in range(first, whole.operations + 1, EVERY):
        outcome = cut(Board(), number, first)
        again = f"replay: python -m firmware_bridge.testing cuts --first {first} --operation {number}"
        assert not outcome.violations, f"{again}\n" + "\n".join(outcome.violations)
        boots += outcome.boots > whole.boots
    assert boots > 2, "nothing was cut"


class _Lazy:
    """A disk whose driver says that it has synced and has not."""

    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk

    def sync(self, name: str) -> None:
        pass

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  the disk's
        return getattr(self._disk, name)


class Unsynced(SimulatedSupervisor):
    """On such a disk."""

    def __init__(self, disk: MemoryDisk, clock: Callable[[], float], chance: random.Random) -> None:
        super().__init__(_Lazy(disk), clock, chance)  # type: ignore[arg-type]


def test_a_device_that_does_not_sync_is_found_and_its_replay_line_printed() -> None:
    command = [sys.executable, "-m", "firmware_bridge.testing", "cuts", "--every", "40"]
    command += ["--machine", "tests.simulation.test_cuts:UnsyncedBoard"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stderr
    line = next(line for line in run.stdout.splitlines() if "replay" in line)
    words = line.partition("replay: python ")[2].split()
    again = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert line in again.stdout


class UnsyncedBoard(Board):
    """What the command is given."""

    def __init__(self) -> None:
        super().__init__(Unsynced)
