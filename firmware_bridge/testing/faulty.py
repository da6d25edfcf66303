"""A line that loses, doubles, reorders and damages what it carries, and a simulation of two ends on it.

Everything follows from one seed and a virtual clock, so a run that fails is replayed by its seed, and hours of
timeouts take milliseconds.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from firmware_bridge.wire.connection import Connection

BOOT_LOG: Final = b"\r\n\x1b[32m[    0.000000] Booting Linux on physical CPU 0x0\x1b[0m\r\n"


@dataclass(frozen=True)
class Faults:
    """What a line does. Probabilities are per frame, unless said otherwise.

    Args:
        loss: the frame vanishes.
        duplication: it arrives twice.
        reordering: it is overtaken by frames sent up to 20 delays later.
        bit_errors: probability per bit that it flips.
        boot_log: text of the device's console arrives before it.
        delay: seconds on the way.
    """

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    bit_errors: float = 0.0
    boot_log: float = 0.0
    delay: float = 0.002


class FaultyLine:
    """One direction of a line.

    Args:
        faults: what it does.
        chance: where its chances come from; seeded by the caller.
    """

    def __init__(self, faults: Faults, chance: random.Random) -> None:
        self.faults = faults
        self._chance = chance
        self._arrivals: list[tuple[float, int, bytes]] = []
        self._sent = 0

    def send(self, now: float, data: bytes) -> None:
        """Put a frame's bytes on the line."""
        if self._hits(self.faults.boot_log):
            self._arrive(now + self.faults.delay, BOOT_LOG)
        if self._hits(self.faults.loss):
            return
        for _ in range(2 if self._hits(self.faults.duplication) else 1):
            late = self._chance.uniform(0, 20 * self.faults.delay) if self._hits(self.faults.reordering) else 0.0
            self._arrive(now + self.faults.delay + late, flip_bits(data, self.faults.bit_errors, self._chance))

    def receive(self, now: float) -> bytes | None:
        """The next bytes that have arrived by now."""
        if not self._arrivals or self._arrivals[0][0] > now:
            return None
        return heapq.heappop(self._arrivals)[2]

    def next_arrival(self) -> float:
        """When the next bytes arrive; infinity: none are on their way."""
        return self._arrivals[0][0] if self._arrivals else float("inf")

    def cut(self) -> None:
        """What is on its way is lost."""
        self._arrivals.clear()

    def _hits(self, probability: float) -> bool:
        return self._chance.random() < probability

    def _arrive(self, at: float, data: bytes) -> None:
        self._sent += 1
        heapq.heappush(self._arrivals, (at, self._sent, data))


def flip_bits(data: bytes, rate: float, chance: random.Random) -> bytes:
    """The data with each bit flipped with probability `rate` (drawn as gaps between flips, not bit by bit)."""
    if rate <= 0.0:
        return data
    flipped = bytearray(data)
    position = int(chance.expovariate(rate))
    while position < 8 * len(flipped):
        flipped[position // 8] ^= 1 << position % 8
        position += 1 + int(chance.expovariate(rate))
    return bytes(flipped)


@dataclass
class End:
    """One end in a simulation.

    Args:
        connection: its bytes.
        work: called whenever something may have changed; takes events, sends messages.
    """

    connection: Connection
    work: Callable[[], None]


class Simulation:
    """Two ends on a faulty line under a virtual clock.

    Args:
        host: the host's end.
        device: the device's end; may be replaced during the run (a restart).
        faults: what the line does, in both directions.
        seed: from which every chance follows.
    """

    def __init__(self, host: End, device: End, faults: Faults, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311  a simulation wants the same numbers again
        self.host = host
        self.device = device
        self.now = 0.0
        self.to_device = FaultyLine(faults, chance)
        self.to_host = FaultyLine(faults, chance)

    def run(self, done: Callable[[], bool], limit: float) -> bool:
        """Let time pass until `done()`, or nothing would ever happen again, or `limit` virtual seconds are over.

        Returns:
            Whether it is done.
        """
        until = self.now + limit
        while not done() and self.now < until:
            self._turn(self.host, self.to_host, self.to_device)
            self._turn(self.device, self.to_device, self.to_host)
            ahead = min(
                self.to_device.next_arrival(),
                self.to_host.next_arrival(),
                *(due for end in (self.host, self.device) if (due := end.connection.deadline()) is not None),
                float("inf"),
            )
            if ahead == float("inf"):
                break
            self.now = max(self.now, ahead)
        return done()

    def _turn(self, end: End, incoming: FaultyLine, outgoing: FaultyLine) -> None:
        while (data := incoming.receive(self.now)) is not None:
            end.connection.receive(self.now, data)
        end.connection.tick(self.now)
        end.work()
        while data := bytes(end.connection.to_write(self.now)):
            outgoing.send(self.now, data)
            end.connection.wrote(len(data))
        end.work()
