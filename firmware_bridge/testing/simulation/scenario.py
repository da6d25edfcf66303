"""What a run will go through, drawn from its seed before it begins."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass

from firmware_bridge.jobs import JobRequest
from firmware_bridge.testing.faulty import Faults

HEALED_AT = 40.0
"""Virtual seconds after which nothing goes wrong any more."""


class Trouble(enum.Enum):
    """What befalls a device, its line or the host."""

    POWER_CUT = "the power goes in one of the next disk operations, or soon"
    KILL = "the supervisor is killed; its disk keeps everything"
    UNPLUG = "the cable is out for a while"
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
        bundles: deployed one after the other; one that begins with b"bad" fails its self-test.
        deploy_at: when each is begun at the earliest.
        jobs: to run, with the time at which each comes up.
    """

    bundles: tuple[bytes, ...]
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
    def draw(cls, seed: int) -> Scenario:
        """The scenario of this seed."""
        chance = random.Random(seed)  # noqa: S311  a simulation wants the same numbers again
        devices = chance.choice((1, 1, 1, 2, 3))
        work = tuple(_work(chance, device) for device in range(devices))
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


def _work(chance: random.Random, device: int) -> Work:
    base = chance.randbytes(chance.choice((500, 20_000, 60_000)))
    heads = [chance.choice((b"", b"", b"bad")) for _ in range(chance.randint(0, 2))]
    bundles = [base, *(head + chance.randbytes(chance.choice((10, 9_000))) + base[4096:] for head in heads)]
    jobs = []
    for number in range(chance.randint(1, 8)):
        steps = chance.choice((1, 3, 10))
        payload = chance.randbytes(chance.choice((0, 10, 4_000, 20_000)))
        request = JobRequest(f"job-{device}-{number}", "echo", {"steps": steps}, payload, chance.randint(0, 3))
        jobs.append((chance.uniform(0, 30), request))
    deploy_at = (0.0, *sorted(chance.uniform(0, 25) for _ in bundles[1:]))
    return Work(tuple(bundles), deploy_at, tuple(jobs))


def _event(chance: random.Random, work: tuple[Work, ...]) -> Event:
    trouble = chance.choice(list(Trouble))
    device = chance.randrange(len(work))
    number = {
        Trouble.POWER_CUT: chance.randint(1, 40),
        Trouble.UNPLUG: chance.uniform(0.1, 12),
        Trouble.CANCEL: chance.randrange(len(work[device].jobs)),
    }.get(trouble, 0)
    return Event(chance.uniform(0, HEALED_AT - 15), trouble, device, number)
