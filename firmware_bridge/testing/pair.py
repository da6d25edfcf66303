"""Two connections on a faulty line under a virtual clock: hours of timeouts take milliseconds, a seed replays a run."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from firmware_bridge.testing.faulty import Faults, FaultyLine
from firmware_bridge.wire.connection import Connection


@dataclass
class End:
    """One end of the line.

    Args:
        connection: its bytes.
        work: called whenever something may have changed; takes events, sends messages.
    """

    connection: Connection
    work: Callable[[], None]


class Pair:
    """Two ends on a faulty line.

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
