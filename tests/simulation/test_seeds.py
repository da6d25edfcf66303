"""Host, the device's real supervisor, lines and disks under a virtual clock: no seed breaks a promise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edge.device.simulation import Board
from firmware_bridge.testing.simulation import Nature, Scenario, simulate
from firmware_bridge.testing.simulation.scenario import Trouble

SEEDS = 300
BATCH = 10


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_no_seed_breaks_a_promise(first: int) -> None:
    board = Board()
    for seed in range(first, first + BATCH):
        outcome = simulate(board, seed)
        again = f"replay: python -m firmware_bridge.testing simulate --seed {seed} --device-log"
        assert not outcome.violations, f"{again}\n" + "\n".join(outcome.violations)


def test_a_blow_may_take_a_device_back_to_a_bundle_that_ends_every_job() -> None:
    """Its first job would have shown that, but none came before the next, better bundle was there."""
    outcome = simulate(Board(), 10553)
    assert not outcome.violations
    assert outcome.ends["internal"] == 1


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
    drawn = [Scenario.draw(Board(), seed) for seed in range(100)]
    assert len({repr(each) for each in drawn}) == 100
    assert {event.trouble for each in drawn for event in each.events} == set(Trouble)
    assert {bundle.nature for each in drawn for work in each.work for bundle in work.bundles} == set(Nature)


def test_jobs_end_in_every_way_that_a_device_may_end_them() -> None:
    board, missing = Board(), {"result", "cancelled", "engine_died", "deadline", "bundle_changed"}
    for seed in range(SEEDS):
        missing -= set(simulate(board, seed).ends)
        if not missing:
            break
    assert not missing
