"""The two windows of a session: packets sent and not yet acknowledged, packets received and not yet in order.

Selective repeat: every packet is acknowledged by number, only what is missing is sent again, either when its timeout
(RFC 6298, with Karn's rule and exponential back-off) is over or when three packets sent after it have arrived
(RFC 8985's idea of loss by order of transmission). No clock: times are passed in, seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from firmware_bridge import limits

_MODULUS: Final = 2**32
_REORDERING: Final = 3


def near(wire: int, base: int) -> int:
    """The full sequence number that `wire`, its low 32 bits, means near `base`."""
    half = _MODULUS // 2
    return base + (wire - base + half) % _MODULUS - half


class RoundTrip:
    """Estimate of the round trip and the timeout that follows from it (RFC 6298, section 2)."""

    def __init__(self) -> None:
        self._smooth: float | None = None
        self._variation = 0.0
        self._backoff = 1

    def sample(self, seconds: float) -> None:
        """A packet sent once was acknowledged after this time."""
        self._backoff = 1
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


@dataclass(slots=True)
class _Flight:
    """A packet on its way."""

    body: bytes
    sent_at: float
    deadline: float
    order: int
    attempts: int = 1
    lost: bool = False


class SendWindow:
    """What waits, what is on its way, and what of it must go again.

    Args:
        bytes_per_second: line rate where it is known: a packet behind others on a slow line gets their time on top.
    """

    def __init__(self, bytes_per_second: float | None = None) -> None:
        self._rate = bytes_per_second
        self._queue: deque[bytes] = deque()
        self._flight: dict[int, _Flight] = {}
        self._base = 0  # what the peer expects next
        self._next = 0
        self._limit = limits.WINDOW  # first number that the peer has no room for
        self._orders = 0
        self._last_backoff = float("-inf")
        self._round_trip = RoundTrip()
        self.fruitless = 0
        """Timeouts in a row without one new acknowledgement."""
        self.sent = 0
        """DATA packets given out, retransmissions included."""
        self.retransmitted = 0
        """Retransmissions among them."""

    @property
    def room(self) -> int:
        """Messages that may be put now."""
        return limits.OUTBOX - len(self._queue)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is on its way."""
        return not self._queue and not self._flight

    @property
    def in_flight(self) -> int:
        """Numbers from the oldest not acknowledged to the newest sent; never above limits.WINDOW."""
        return self._next - self._base

    @property
    def acknowledged(self) -> int:
        """Packets that have arrived in order at the peer: grows as long as the link is alive and the peer takes."""
        return self._base

    @property
    def waiting(self) -> int:
        """Messages queued behind the window."""
        return len(self._queue)

    @property
    def starved(self) -> bool:
        """There is something to send, nothing on its way, and the peer has no room: only a question finds out more."""
        return bool(self._queue) and not self._flight and self._next >= self._limit

    @property
    def timeout(self) -> float:
        """Seconds after which an unanswered packet is sent again."""
        return self._round_trip.timeout()

    def put(self, body: bytes) -> None:
        """Queue a message; the caller has seen that there is room."""
        assert self.room > 0
        self._queue.append(body)

    def next(self, now: float) -> tuple[int, bytes] | None:
        """The next DATA packet to send, (sequence modulo 2**32, body); what is lost goes first."""
        for sequence, flight in self._flight.items():
            if flight.lost:
                flight.lost = False
                flight.attempts += 1
                self.retransmitted += 1
                self._launch(flight, now)
                return sequence % _MODULUS, flight.body
        if not self._queue or self._next >= min(self._base + limits.WINDOW, self._limit):
            return None
        sequence, body = self._next, self._queue.popleft()
        self._next += 1
        flight = _Flight(body, now, now, 0)
        self._launch(flight, now)
        self._flight[sequence] = flight
        return sequence % _MODULUS, body

    def acknowledge(self, now: float, acknowledged: int, selective: int, credit: int) -> None:
        """Take a packet's acknowledgement; one that makes no sense (stale, or of what was never sent) is ignored."""
        base = near(acknowledged, self._base)
        if not self._base <= base <= self._next:
            return
        self._base = base
        self._limit = max(self._limit, base + min(credit, limits.WINDOW))
        ahead = selective << 1  # bit n: number base + n
        arrived = [number for number in self._flight if number < base or ahead >> (number - base) & 1]
        if not arrived:
            return
        self.fruitless = 0
        flights = [self._flight.pop(number) for number in arrived]
        newest = max(flights, key=lambda flight: flight.order)
        if newest.attempts == 1:
            self._round_trip.sample(now - newest.sent_at)
        for flight in self._flight.values():
            if flight.order + _REORDERING <= newest.order:
                flight.lost = True

    def deadline(self) -> float | None:
        """When `expire` has something to do; None: nothing is on its way."""
        return min((flight.deadline for flight in self._flight.values() if not flight.lost), default=None)

    def expire(self, now: float) -> None:
        """Give up waiting for what is overdue; back off once for all that were sent before the last back-off."""
        overdue = [flight for flight in self._flight.values() if not flight.lost and flight.deadline <= now]
        for flight in overdue:
            flight.lost = True
        if any(flight.sent_at >= self._last_backoff for flight in overdue):
            self._last_backoff = now
            self.fruitless += 1
            self._round_trip.back_off()

    def has_lost(self) -> bool:
        """Whether something waits to be sent again."""
        return any(flight.lost for flight in self._flight.values())

    def _launch(self, flight: _Flight, now: float) -> None:
        self.sent += 1
        self._orders += 1
        flight.order = self._orders
        flight.sent_at = now
        ahead = sum(len(other.body) for other in self._flight.values()) + len(flight.body)
        flight.deadline = now + self.timeout + (2 * ahead / self._rate if self._rate else 0.0)


class ReceiveWindow:
    """What has arrived out of order, and the acknowledgement that says so."""

    def __init__(self) -> None:
        self._expected = 0
        self._held: dict[int, bytes] = {}
        self.duplicates = 0
        """Packets dropped because they had arrived before."""

    def accept(self, sequence: int, body: bytes, room: int) -> list[bytes]:
        """The messages that this packet brings into order; none if it is early, a duplicate, or beyond `room`."""
        number = near(sequence, self._expected)
        if number < self._expected or number in self._held:
            self.duplicates += 1
            return []
        if number >= self._expected + min(room, limits.WINDOW):
            return []
        self._held[number] = body
        ready = []
        while self._expected in self._held:
            ready.append(self._held.pop(self._expected))
            self._expected += 1
        return ready

    def acknowledgement(self) -> tuple[int, int]:
        """(number expected next modulo 2**32, bit n: number expected + 1 + n is here)."""
        selective = 0
        for number in self._held:
            selective |= 1 << (number - self._expected - 1)
        return self._expected % _MODULUS, selective
