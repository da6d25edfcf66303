"""What the simulation must find: the real supervisor with one promise taken out of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.device import supervisor
from edge.device.journal import Outcome
from edge.device.simulation import Board, SimulatedSupervisor
from edge.device.trust import Gate
from firmware_bridge.keys import TrustedKeys
from firmware_bridge.testing.disk import MemoryDisk
from firmware_bridge.testing.simulation import simulate

SEEDS = 80


class _Lazy:
    """A disk that syncs everything but one file."""

    def __init__(self, disk: MemoryDisk, name: str) -> None:
        self._disk = disk
        self._name = name

    def sync(self, name: str) -> None:
        if name != self._name:
            self._disk.sync(name)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  the disk's
        return getattr(self._disk, name)


class Forgetful(SimulatedSupervisor):
    """Says that it has a job before the job is on the disk."""

    def __init__(self, disk: MemoryDisk, clock: Callable[[], float], chance: random.Random) -> None:
        super().__init__(_Lazy(disk, "journal"), clock, chance)  # type: ignore[arg-type]


class Repeating(SimulatedSupervisor):
    """Runs a job again that it has run."""

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments)
        self._journal.knows = lambda _job_id: False  # type: ignore[method-assign]


class Credulous(SimulatedSupervisor):
    """Makes any bundle the active one, whatever its self-test says."""

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments)
        self._bundles._self_test = lambda *_: None  # type: ignore[method-assign]


class Gullible(SimulatedSupervisor):
    """Takes bundles from anybody."""

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments)
        self._bundles._gate = Gate(TrustedKeys(Path("/nonexistent")), "simulated")


class Muddled(SimulatedSupervisor):
    """Mixes up results."""

    def _outcome(self, job_id: str) -> Outcome | None:
        return super()._outcome(min(self._journal._jobs, default=job_id)) or super()._outcome(job_id)


class Stubborn(SimulatedSupervisor):
    """Stays with a bundle that takes it down."""

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments)
        self._bundles.job_begins = lambda _job_id: None  # type: ignore[method-assign]


class Careless(SimulatedSupervisor):
    """Drops at its start the jobs that it had accepted."""

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(supervisor, "recover", lambda *_: [])
            super().__init__(*arguments)


@pytest.mark.parametrize("kind", [Forgetful, Repeating, Credulous, Gullible, Muddled, Stubborn, Careless])
def test_a_device_that_breaks_a_promise_is_found(kind: type[SimulatedSupervisor]) -> None:
    assert any(simulate(Board(kind), seed).violations for seed in range(SEEDS))
