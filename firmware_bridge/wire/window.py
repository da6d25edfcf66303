"""The sender's window: bytes sent and not yet acknowledged, and which of them must go again.

The messages of one direction form one stream of bytes (stream.py). Selective repeat: the peer tells which ranges have
arrived, and only what is missing is sent again, when its timeout is over (RFC 6298, with Karn's rule and exponential
back-off), when three packets sent after it have arrived (RFC 8985's idea of loss by order of transmission), or when a
question sent after it was answered. What goes again may be cut into shorter packets. No clock: times are passed in,
seconds of any monotonic clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from firmware_bridge import limits
from firmware_bridge.wire.packet import Range
from firmware_bridge.wire.stream import MODULUS, near, pack
from firmware_bridge.wire.timing import FrameSize, RoundTrip

_REORDERING: Final = 3
_MOST_REORDERING: Final = 256
_NEVER: Final = float("inf")


@dataclass(slots=True)
class _Flight:
    """A packet on its way: bytes [start, end) of the stream."""

    start: int
    end: int
    sent_at: float = 0.0
    deadline: float = 0.0
    order: int = 0
    attempts: int = 0
    lost: bool = False
    by_order: bool = False  # it was last given up because later ones had arrived
    soonest: float = 0.0  # no answer to its last sending can come before this

    def is_mistaken(self, now: float) -> bool:
        """Whether what arrived by now was an earlier sending, which had been given up."""
        return self.lost or (self.attempts > 1 and now < self.soonest)


class SendWindow:
    """What waits, what is on its way, and what of it must go again.

    Args:
        bytes_per_second: line rate where it is known: a packet behind others on a slow line gets their time on top.
    """

    def __init__(self, bytes_per_second: float | None = None) -> None:
        self._rate = bytes_per_second
        self._queue: deque[bytes] = deque()
        self._data = bytearray()  # the stream from the base on, as far as it is sent, and a little ahead
        self._flight: dict[int, _Flight] = {}
        self._lost: set[int] = set()  # starts of those given up
        self._earliest = _NEVER  # no deadline in flight is before this
        self._base = 0  # what the peer expects next
        self._next = 0
        self._limit = limits.WINDOW  # first byte that the peer has no room for
        self._reordering = _REORDERING  # packets by which one may be overtaken and still arrive
        self._told = float("inf")  # below it, the last acknowledgement told everything
        self._orders = 0
        self._outstanding = 0  # bytes in flight, those given up as lost not counted
        self._last_backoff = float("-inf")
        self._round_trip = RoundTrip()
        self.frame_size = FrameSize()
        self.fruitless = 0
        """Timeouts in a row without one new acknowledgement."""
        self.sent = 0
        """DATA packets given out, retransmissions included."""
        self.retransmitted = 0
        """Retransmissions among them."""
        self.retransmitted_bytes = 0
        """Bytes of the stream in those."""

    @property
    def room(self) -> int:
        """Messages that may be put now."""
        return limits.OUTBOX - len(self._queue)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is on its way."""
        return not self._queue and not self._data

    @property
    def in_flight(self) -> int:
        """Bytes from the oldest not acknowledged to the newest sent; never above limits.WINDOW."""
        return self._next - self._base

    @property
    def acknowledged(self) -> int:
        """Bytes that have arrived in order at the peer: grows as long as the link is alive and the peer takes."""
        return self._base

    @property
    def waiting(self) -> int:
        """Messages queued behind the window."""
        return len(self._queue)

    @property
    def starved(self) -> bool:
        """There is something to send, nothing on its way, and the peer has no room: only a question finds out more."""
        return not self._flight and self._next >= self._limit and not self.idle

    @property
    def timeout(self) -> float:
        """Seconds after which an unanswered packet is sent again."""
        return self._round_trip.timeout()

    @property
    def orders(self) -> int:
        """Packets given out so far; what a question asked now may be compared with when it is answered."""
        return self._orders

    @property
    def wants_probe(self) -> bool:
        """Something is on its way over a line that loses: the answer to a question behind it tells what was lost."""
        return bool(self._flight) and self.frame_size.is_lossy

    def set_rate(self, bytes_per_second: float | None) -> None:
        """The line has another rate from here on."""
        self._rate = bytes_per_second

    def put(self, body: bytes) -> None:
        """Queue a message; the caller has seen that there is room."""
        assert self.room > 0
        self._queue.append(pack(body))

    def next(self, now: float) -> tuple[int, bytes] | None:
        """The next DATA packet to send, (offset modulo 2**32, bytes); what is lost goes first."""
        if self._lost:
            return self._launch_again(self._flight[min(self._lost)], now)
        size = min(self.frame_size.best(), self._base + limits.WINDOW - self._next, self._limit - self._next)
        ready = self._base + len(self._data) - self._next
        while ready < size and self._queue:
            message = self._queue.popleft()
            self._data += message
            ready += len(message)
        if size <= 0 or ready == 0 or (self._flight and size < min(ready, self.frame_size.best())):
            return None  # no crumbs for a sliver of credit, as long as an acknowledgement will bring more
        size = min(size, ready)
        flight = _Flight(self._next, self._next + size)
        self._next += size
        self._flight[flight.start] = flight
        return self._launch(flight, now)

    def acknowledge(self, now: float, acknowledged: int, ranges: Sequence[Range], credit: int) -> None:
        """Take a packet's acknowledgement; one that makes no sense (stale, or of what was never sent) is ignored."""
        base = near(acknowledged, self._base)
        if not self._base <= base <= self._next:
            return
        self._limit = max(self._limit, base + min(credit, limits.WINDOW))
        moved, here = base > self._base, [(base + start, base + end) for start, end in ranges]
        self._reordering = _REORDERING  # each acknowledgement shows anew how late packets come
        self._told = here[-2][1] if len(here) == limits.MAX_RANGES else self._next
        if moved:
            del self._data[: base - self._base]
            self._base = base
        elif not here:
            return
        arrived = self._arrived(base, here)
        if moved:
            self._shorten(base)
        if not arrived:
            return
        self.fruitless = 0
        for flight in arrived:
            self._land(flight, now)
        if not self._flight:
            self._earliest = _NEVER
        once = [flight for flight in arrived if flight.attempts == 1 and not flight.lost]
        if not once:  # of others, who knows which sending came: an early one would condemn all that were sent since
            return
        newest = max(once, key=lambda flight: flight.order)
        self._round_trip.sample(now - newest.sent_at)
        self._pass(newest.order - self._reordering)

    def overtaken(self, order: int) -> None:
        """What was given out as number `order` or before and has not arrived is lost: later packets have.

        Where the last acknowledgement could not tell all, only what lies below what it told is judged.
        """
        self._pass(order - self._reordering + _REORDERING)

    def _pass(self, order: int) -> None:
        for flight in self._flight.values():
            if flight.order <= order and flight.start < self._told and not flight.lost:
                flight.by_order = True
                self._give_up(flight)

    def deadline(self) -> float | None:
        """When `expire` may have something to do; None: nothing is on its way."""
        if len(self._flight) == len(self._lost):
            return None
        return self._earliest

    def expire(self, now: float) -> None:
        """Give up waiting for what is overdue; back off once for all that were sent before the last back-off."""
        if now < self._earliest:
            return
        overdue = [flight for flight in self._flight.values() if not flight.lost and flight.deadline <= now]
        rest = (flight.deadline for flight in self._flight.values() if not flight.lost and flight.deadline > now)
        self._earliest = min(rest, default=_NEVER)
        for flight in overdue:
            flight.by_order = False
            self._give_up(flight, is_counted=flight is overdue[0])  # of the others, nothing is known
        if any(flight.sent_at >= self._last_backoff for flight in overdue):
            self._last_backoff = now
            self.fruitless += 1
            self._round_trip.back_off()

    def has_lost(self) -> bool:
        """Whether something waits to be sent again."""
        return bool(self._lost)

    def _arrived(self, base: int, here: list[Range]) -> list[_Flight]:
        """What is on its way no more. A packet is told whole or not at all: it was cut where it was sent."""
        flights = self._flight.values()
        if not here:
            return [flight for flight in flights if flight.end <= base]
        starts = [start for start, _ in here]
        arrived = []
        for flight in flights:
            at = bisect_right(starts, flight.start) - 1
            if flight.end <= base or (at >= 0 and flight.end <= here[at][1]):
                arrived.append(flight)
        return arrived

    def _launch_again(self, flight: _Flight, now: float) -> tuple[int, bytes]:
        size = self.frame_size.best()
        if flight.end - flight.start > size + size // 4:  # cut what is too long for the line; no crumbs
            rest = _Flight(flight.start + size, flight.end, attempts=flight.attempts, lost=True)
            self._flight[rest.start] = rest
            self._lost.add(rest.start)
            flight.end = flight.start + size
        flight.lost = False
        self._lost.discard(flight.start)
        self.retransmitted += 1
        self.retransmitted_bytes += flight.end - flight.start
        return self._launch(flight, now)

    def _launch(self, flight: _Flight, now: float) -> tuple[int, bytes]:
        self.sent += 1
        self._orders += 1
        flight.order = self._orders
        flight.attempts += 1
        flight.sent_at = now
        self._outstanding += flight.end - flight.start
        on_line = self._outstanding / self._rate if self._rate else 0.0
        flight.deadline = now + self.timeout + 2 * on_line
        flight.soonest = now + (self._round_trip.least + on_line) / 2
        self._earliest = min(self._earliest, flight.deadline)
        body = bytes(self._data[flight.start - self._base : flight.end - self._base])
        return flight.start % MODULUS, body

    def _land(self, flight: _Flight, now: float) -> None:
        if flight.is_mistaken(now):
            self._mistaken(flight)
        del self._flight[flight.start]
        if flight.lost:
            self._lost.discard(flight.start)
        else:
            self._outstanding -= flight.end - flight.start
        self.frame_size.arrived(flight.end - flight.start)

    def _mistaken(self, flight: _Flight) -> None:
        """A packet taken for lost had only been late: the line is better, or reorders more, than was thought."""
        self.frame_size.forgive()
        if flight.by_order:
            self._reordering = min(2 * self._reordering, _MOST_REORDERING)

    def _give_up(self, flight: _Flight, *, is_counted: bool = True) -> None:
        flight.lost = True
        self._lost.add(flight.start)
        self._outstanding -= flight.end - flight.start
        if is_counted:
            self.frame_size.lost(flight.end - flight.start)

    def _shorten(self, base: int) -> None:
        """A peer that acknowledges in mid-packet is odd, but means it: the rest of that packet remains."""
        for flight in [flight for flight in self._flight.values() if flight.start < base < flight.end]:
            del self._flight[flight.start]
            if flight.lost:
                self._lost.discard(flight.start)
                self._lost.add(base)
            else:
                self._outstanding -= base - flight.start
            flight.start = base
            self._flight[base] = flight
