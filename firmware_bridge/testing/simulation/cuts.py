"""Every operation on a device's disk is cut once, in a story of uploads, activations, jobs and a rollback.

The first bundle is good; a second one is; a third fails its self-test; a fourth passes it, takes the device down in its
first job, and is gone back from. The line is clean: all the trouble is one power cut, in the n-th operation.
"""

from __future__ import annotations

import random
from typing import Final

from firmware_bridge.testing.faulty import Faults
from firmware_bridge.testing.simulation.machine import Machine, Nature
from firmware_bridge.testing.simulation.scenario import Event, Scenario, Trouble, Work
from firmware_bridge.testing.simulation.world import Outcome, play

_BUNDLES: Final = (Nature.GOOD, Nature.GOOD, Nature.REFUSED, Nature.FATAL)
_APART: Final = 4.0
"""Virtual seconds from one deployment to the next: a device that was cut is back by then."""


def cut(machine: Machine, operation: int | None, seed: int) -> Outcome:
    """The story with the power cut in one operation.

    Args:
        machine: what the device is.
        operation: number of the operation that is cut, from 1; None: none is.
        seed: draws bundles and jobs, and what a cut leaves of what was not synced.
    """
    chance = random.Random(f"cuts {seed}")  # noqa: S311  a simulation wants the same numbers again
    bundles = tuple(machine.bundle(chance, nature) for nature in _BUNDLES)
    deploy_at = tuple(_APART * number for number in range(len(bundles)))
    jobs = tuple((at + _APART / 2, machine.job(chance, f"job-{number}")) for number, at in enumerate(deploy_at))
    events = () if operation is None else (Event(0.0, Trouble.POWER_CUT, 0, operation),)
    line = Faults(bytes_per_second=300_000.0)
    return play(machine, Scenario(seed, (line,), (Work(bundles, deploy_at, jobs),), events))
