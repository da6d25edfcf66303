"""What a sender learns of its line: the round trip, and how long a frame may be before the line's errors eat it."""

from __future__ import annotations

import math
from typing import Final

from firmware_bridge import limits


class RoundTrip:
    """Estimate of the round trip and the timeout that follows from it (RFC 6298, section 2)."""

    def __init__(self) -> None:
        self._smooth: float | None = None
        self._variation = 0.0
        self._backoff = 1
        self.least = 0.0
        """The shortest round trip seen, 0 before the first."""

    def sample(self, seconds: float) -> None:
        """A packet sent once was acknowledged after this time (Karn: one sent twice tells nothing)."""
        self._backoff = 1
        self.least = seconds if self._smooth is None else min(self.least, seconds)
        if self._smooth is None:
            self._smooth, self._variation = seconds, seconds / 2
            return
        self._variation += (abs(self._smooth - seconds) - self._variation) / 4
        self._smooth += (seconds - self._smooth) / 8

    def back_off(self) -> None:
        """A timeout was over in vain: wait twice as long next time."""
        if self.timeout() < limits.MAX_TIMEOUT:
            self._backoff *= 2

    def timeout(self) -> float:
        """Seconds to wait for an acknowledgement."""
        plain = limits.INITIAL_TIMEOUT if self._smooth is None else self._smooth + 4 * self._variation
        return min(max(plain, limits.MIN_TIMEOUT) * self._backoff, limits.MAX_TIMEOUT)


class FrameSize:
    """The number of bytes a DATA packet should carry on a line with errors.

    A frame of n bytes and an overhead of h bytes arrives with probability (1-e)**(n+h), e being the errors a byte; the
    goodput n/(n+h) * (1-e)**(n+h) is largest near n = sqrt(h/e). e is estimated as losses over bytes sent, both fading
    with the bytes sent since: too low where every long frame is lost, but the next, shorter ones tell better.
    """

    _OVERHEAD: Final = 30.0
    """Bytes around a DATA packet's body: header, CRC, zeros, COBS."""
    _MEMORY: Final = 128 * 1024.0
    """Bytes sent after which what was seen before counts a third."""

    def __init__(self) -> None:
        self._losses = 0.0
        self._bytes = self._MEMORY

    @property
    def is_lossy(self) -> bool:
        """Whether the line has lost something lately."""
        return self._losses > 0.05

    def arrived(self, length: int) -> None:
        """A packet of this many bytes has arrived."""
        self._fade(length)

    def lost(self, length: int) -> None:
        """A packet of this many bytes has not."""
        if not self.is_lossy:  # the first loss in a long time: what was sent before it says little about the line now
            self._bytes = min(self._bytes, self._MEMORY / 4)
        self._fade(length)
        self._losses += 1.0

    def forgive(self) -> None:
        """What was taken for lost has arrived after all."""
        self._losses = max(0.0, self._losses - 1.0)

    def best(self) -> int:
        """Bytes of the stream that the next DATA packet should carry."""
        if not self.is_lossy:
            return limits.CHUNK
        best = math.sqrt(self._OVERHEAD * self._bytes / self._losses)
        return min(max(int(best), limits.MIN_FRAME), limits.CHUNK)

    def _fade(self, length: int) -> None:
        keep = math.exp(-length / self._MEMORY)
        self._losses *= keep
        self._bytes = self._bytes * keep + length
