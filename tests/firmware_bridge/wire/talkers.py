"""Two ends that talk in memory, and whoever sits on the line between them."""

import itertools
import random
from collections.abc import Callable, Sequence

from firmware_bridge.testing.site import Site
from firmware_bridge.wire import frame, packet
from firmware_bridge.wire import messages as m
from firmware_bridge.wire.connection import Connection, Received, Unreadable
from firmware_bridge.wire.packet import Packet
from firmware_bridge.wire.secure import Security
from firmware_bridge.wire.session import Lost, Opened
from firmware_bridge.wire.states import Ending, Role

Change = Callable[[Packet], Packet | None]
"""What somebody on the line makes of a packet; None: it never arrives."""


class Talker:
    """One end that says its messages as soon as it may, and keeps what it hears."""

    def __init__(self, role: Role, security: Security | None, to_say: Sequence[m.Message] = (), epoch: int = 1) -> None:
        epochs = itertools.count(epoch)
        self.connection = Connection(role, epoch=lambda: next(epochs), security=security)
        self.to_say = list(to_say)
        self.said = 0
        self.got: list[m.Message] = []
        self.events: list[Opened | Lost | Unreadable] = []

    def work(self) -> None:
        while (event := self.connection.next_event()) is not None:
            if isinstance(event, Received):
                self.got.append(event.message)
            else:
                self.events.append(event)
        while self.connection.room and self.said < len(self.to_say):
            self.connection.send(self.to_say[self.said])
            self.said += 1

    @property
    def endings(self) -> list[Ending]:
        return [event.why for event in self.events if isinstance(event, Lost)]

    @property
    def opened(self) -> int:
        return sum(isinstance(event, Opened) for event in self.events)


class Line:
    """Two ends and whoever sits between them; every packet passes at once."""

    def __init__(
        self, host: Talker, device: Talker, to_device: Change | None = None, to_host: Change | None = None
    ) -> None:
        self.host, self.device = host, device
        self._changes = (to_device or (lambda each: each), to_host or (lambda each: each))
        self.now = 0.0
        self.seen: list[tuple[Role, Packet]] = []

    def run(self, seconds: float = 0.0) -> None:
        """Until nothing moves any more, then so much later again and again, until nothing moves for so long."""
        until = self.now + seconds
        while self._turn() or self.now < until:
            self.now += 0.01

    def _turn(self) -> bool:
        ends = (self.host, self.device)
        moved = False
        for source, target, change in zip(ends, reversed(ends), self._changes, strict=True):
            source.work()
            while data := bytes(source.connection.to_write(self.now)):
                source.connection.wrote(len(data))
                moved = True
                self._pass(source, target, data, change)
            target.work()
        return moved

    def _pass(self, source: Talker, target: Talker, data: bytes, change: Change) -> None:
        (piece,) = frame.FrameDecoder().feed(data)
        assert isinstance(piece, frame.Packet)
        sent = packet.decode(piece.data)
        assert isinstance(sent, Packet)
        self.seen.append((source.connection.session.role, sent))
        arrives = change(sent)
        if arrives is not None:
            target.connection.receive(self.now, frame.encode(arrives.encode()))


def chunks(count: int, seed: int, size: int = 1500) -> list[m.Message]:
    chance = random.Random(seed)
    return [m.JobPayload(number, number, chance.randbytes(chance.randint(1, size))) for number in range(count)]


def ends(site: Site, count: int = 12) -> tuple[Talker, Talker]:
    """A host that opens, and a device."""
    host = Talker(Role.HOST, site.security(Role.HOST), chunks(count, 1), 100)
    device = Talker(Role.DEVICE, site.security(Role.DEVICE), chunks(count, 2), 500)
    host.connection.session.open(0.0)
    return host, device


def with_body(each: Packet, body: bytes) -> Packet:
    return Packet(each.kind, each.session, each.offset, each.acknowledged, each.ranges, each.credit, body)
