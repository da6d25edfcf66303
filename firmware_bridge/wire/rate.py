"""Changing a UART's rate under a session, and back when it does not work: one state machine for both ends.

    STEADY  --agreed, what was said about it acknowledged-->       TRIAL   (new rate)
    TRIAL   --a packet arrived-->                                  STEADY  (new rate)
    TRIAL   --TRIAL_SECONDS without one-->                         STEADY  (the rate before)
    STEADY  --SILENT_SECONDS without one, or the session over-->   STEADY  (the rate that the port was opened at)

The last line is what brings two ends together again of which one was restarted. Sans-IO: `turn` says what rate to set.
"""

from __future__ import annotations

from typing import Final

TRIAL_SECONDS: Final = 1.5
"""Longer than the longest timeout after a measured round trip usually is: both ends have asked by then."""
SETTLE_SECONDS: Final = 0.05
"""What a USB adapter may still hold after the system says that all is written: its latency timer is 16 ms."""
SILENT_SECONDS: Final = 5.0
"""The host asks every two seconds."""
CAPABILITY: Final = "baud:"
"""A device's capability that its UART can go up to this rate."""


class RateChange:
    """The rate of one end.

    Args:
        base: bits a second that the port was opened at.
    """

    def __init__(self, base: int) -> None:
        self.baud = base
        self.failed = 0
        """Trials that ended where they began."""
        self._base = base
        self._before = base
        self._wanted: int | None = None
        self._switch_at: float | None = None
        self._trial_until: float | None = None
        self._packets = 0
        self._heard_at = 0.0

    @property
    def is_settled(self) -> bool:
        """No change is under way."""
        return self._wanted is None and self._trial_until is None

    def want(self, baud: int) -> None:
        """Both ends have agreed."""
        self._wanted, self._switch_at = baud, None

    def turn(self, now: float, packets: int, *, is_open: bool, is_flushed: bool) -> int | None:
        """The rate to set now; None: leave it.

        Args:
            now: seconds of a monotonic clock.
            packets: undamaged ones received so far.
            is_open: there is a session.
            is_flushed: all that was said is acknowledged and written.
        """
        if packets != self._packets:
            self._packets, self._heard_at, self._trial_until = packets, now, None
        if self._trial_until is not None:
            if now < self._trial_until:
                return None
            self.failed += 1
            return self._set(self._before, now)
        if self.baud != self._base and (not is_open or now >= self._heard_at + SILENT_SECONDS):
            self._wanted = None
            return self._set(self._base, now)
        if self._wanted is None or not is_flushed:
            return None
        if self._switch_at is None:
            self._switch_at = now + SETTLE_SECONDS
        if now < self._switch_at:
            return None
        self._before = self.baud
        self._trial_until = now + TRIAL_SECONDS
        baud, self._wanted = self._wanted, None
        self.baud, self._heard_at = baud, now
        return baud

    def refused(self, baud: int) -> None:
        """The port does not take the rate that `turn` named; it is still at this one."""
        self.failed += 1
        self.baud, self._trial_until = baud, None

    def deadline(self) -> float | None:
        """The time at which to call `turn` even if nothing arrives before; None: never."""
        if self._trial_until is not None:
            return self._trial_until
        if self._wanted is not None and self._switch_at is not None:
            return self._switch_at
        return None if self.baud == self._base else self._heard_at + SILENT_SECONDS

    def _set(self, baud: int, now: float) -> int:
        self.baud, self._heard_at, self._trial_until = baud, now, None
        return baud


def offered(capabilities: tuple[str, ...]) -> int:
    """The highest rate that a device offers in its hello; 0: none."""
    for capability in capabilities:
        number = capability.removeprefix(CAPABILITY)
        if number != capability and number.isascii() and number.isdigit():
            return int(number)
    return 0
