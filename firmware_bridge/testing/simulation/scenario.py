"""What a run will go through, drawn from its seed before it begins."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass, replace

from firmware_bridge.jobs import JobRequest
from firmware_bridge.testing.faulty import Faults
from firmware_bridge.testing.simulation.machine import Bundle, Machine, Nature

HEALED_AT = 24.0
"""Virtual seconds after which nothing goes wrong any more."""
_FIRST = (*(Nature.GOOD,) * 11, Nature.FATAL)
_LATER = (Nature.GOOD, Nature.GOOD, Nature.REFUSED, Nature.UNTRUSTED, Nature.FATAL)
_DEADLINES = 0.1
"""Share of jobs that have one."""
_PREVIEWS = 0.2
"""Share of jobs whose images somebody watches."""


class Trouble(enum.Enum):
    """What befalls a device, its line or the host."""

    POWER_CUT = "the power goes in one of the next disk operations, or soon"
    KILL = "the supervisor is killed; its disk keeps everything"
    UNPLUG = "the cable is out for a while"
    ENGINE_KILL = "the engine's process is killed"
    HOST_KILL = "the host's process is killed; its queue is on disk"
    CANCEL = "the user cancels a job"


@dataclass(frozen=True)
class Event:
    """One trouble.

    Args:
        at: virtual seconds.
        trouble: what.
        device: which.
        number: more: operations until the power is cut, seconds a cable is out, the job that is cancelled.
    """

    at: float
    trouble: Trouble
    device: int
    number: float


@dataclass(frozen=True)
class Work:
    """What the host has to do with one device.

    Args:
        bundles: deployed one after the other.
        deploy_at: when each is begun at the earliest.
        jobs: to run, with the time at which each comes up.
    """

    bundles: tuple[Bundle, ...]
    deploy_at: tuple[float, ...]
    jobs: tuple[tuple[float, JobRequest], ...]


@dataclass(frozen=True)
class Scenario:
    """One run.

    Args:
        seed: it was drawn from.
        faults: of each device's line until it heals.
        work: for each device.
        events: in order.
    """

    seed: int
    faults: tuple[Faults, ...]
    work: tuple[Work, ...]
    events: tuple[Event, ...]

    @classmethod
    def draw(cls, machine: Machine, seed: int) -> Scenario:
        """The scenario of this seed, for devices of a kind."""
        chance = random.Random(seed)  # noqa: S311  a simulation wants the same numbers again
        devices = chance.choice((1, 1, 1, 2, 3))
        work = tuple(_work(machine, chance, device) for device in range(devices))
        events = [_event(chance, work) for _ in range(chance.randint(0, 8))]
        return cls(
            seed,
            tuple(_faults(chance) for _ in range(devices)),
            work,
            tuple(sorted(events, key=lambda event: event.at)),
        )


def _faults(chance: random.Random) -> Faults:
    def maybe(highest: float) -> float:
        return chance.choice((0.0, chance.uniform(0, highest)))

    return Faults(
        loss=maybe(0.15),
        duplication=maybe(0.1),
        reordering=maybe(0.1),
        bit_errors=chance.choice((0.0, 0.0, 1e-6, 1e-5, 1e-4)),
        boot_log=maybe(0.02),
        burst=maybe(0.01),
        stall=maybe(0.005),
        delay=chance.choice((0.0005, 0.002, 0.02)),
        bytes_per_second=chance.choice((None, 300_000.0, 92_160.0, 11_520.0)),
    )


def _work(machine: Machine, chance: random.Random, device: int) -> Work:
    natures = [chance.choice(_FIRST), *(chance.choice(_LATER) for _ in range(chance.randint(0, 2)))]
    bundles = tuple(machine.bundle(chance, nature) for nature in natures)
    deploy_at = (0.0, *sorted(chance.uniform(0, 14) for _ in bundles[1:]))
    jobs = []
    for number in range(chance.randint(1, 8)):
        job = replace(machine.job(chance, f"job-{device}-{number}"), priority=chance.randint(0, 3))
        if chance.random() < _DEADLINES:
            job = replace(job, deadline=chance.uniform(0.2, 20))
        if chance.random() < _PREVIEWS:
            job = replace(job, preview_every=chance.randint(1, 4))
        jobs.append((chance.uniform(0, 18), job))
    return Work(bundles, deploy_at, tuple(jobs))


def _event(chance: random.Random, work: tuple[Work, ...]) -> Event:
    trouble = chance.choice(list(Trouble))
    device = chance.randrange(len(work))
    number = {
        Trouble.POWER_CUT: chance.randint(1, 40),
        Trouble.UNPLUG: chance.uniform(0.1, 8),
        Trouble.CANCEL: chance.randrange(len(work[device].jobs)),
    }.get(trouble, 0)
    return Event(chance.uniform(0, 18), trouble, device, number)
