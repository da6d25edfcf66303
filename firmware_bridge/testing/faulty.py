"""A line that loses, doubles, reorders, damages and delays what it carries; all of its chances follow from one seed."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from typing import Final

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
        burst: the frame and what follows within `burst_seconds` arrive as noise.
        burst_seconds: how long a burst lasts.
        stall: the line stops for up to `stall_seconds`, then goes on.
        stall_seconds: how long a stall lasts at most.
        bytes_per_second: the line's rate; None: no limit.
    """

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    bit_errors: float = 0.0
    boot_log: float = 0.0
    delay: float = 0.002
    burst: float = 0.0
    burst_seconds: float = 0.02
    stall: float = 0.0
    stall_seconds: float = 3.0
    bytes_per_second: float | None = None


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
        self.sent = 0
        """Arrivals so far, copies and console text included."""
        self._free_at = 0.0
        self._noise_until = float("-inf")

    def send(self, now: float, data: bytes) -> None:
        """Put a frame's bytes on the line."""
        faults = self.faults
        if self._hits(faults.boot_log):
            self._arrive(now, BOOT_LOG)
        if self._hits(faults.stall):
            self._free_at = max(self._free_at, now) + self._chance.uniform(0, faults.stall_seconds)
        if self._hits(faults.burst):
            self._noise_until = now + faults.burst_seconds
        if now < self._noise_until:
            self._arrive(now, self._chance.randbytes(len(data)))
            return
        if self._hits(faults.loss):
            return
        for _ in range(2 if self._hits(faults.duplication) else 1):
            late = self._chance.uniform(0, 20 * faults.delay) if self._hits(faults.reordering) else 0.0
            self._arrive(now, flip_bits(data, faults.bit_errors, self._chance), late)

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
        return probability > 0.0 and self._chance.random() < probability

    def _arrive(self, now: float, data: bytes, late: float = 0.0) -> None:
        self.sent += 1
        begun = max(now, self._free_at)
        if self.faults.bytes_per_second is not None:
            begun += len(data) / self.faults.bytes_per_second
            self._free_at = begun
        heapq.heappush(self._arrivals, (begun + self.faults.delay + late, self.sent, data))


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
