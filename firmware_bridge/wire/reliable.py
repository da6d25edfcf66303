"""A session: every message arrives once and in order, in both directions, whatever the line does to single packets.

Sans-IO: packets in, packets and events out, the time passed in. The host opens a session and the device accepts it;
each side adds an epoch of its own, drawn anew at each opening, so that packets of an earlier life of either side are
told apart and a restarted peer starts clean. The device keeps an old session until the first packet of the new one,
so that a stale OPEN on the line cannot break anything. State table: PROTOCOL.md.
"""

from __future__ import annotations

import enum
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from firmware_bridge import limits
from firmware_bridge.errors import LocalProtocolError, RemoteProtocolError
from firmware_bridge.wire import packet as packets
from firmware_bridge.wire.packet import Kind, OtherVersion, Packet
from firmware_bridge.wire.version import PROTOCOL
from firmware_bridge.wire.window import ReceiveWindow, SendWindow


class Role(enum.Enum):
    """Who opens."""

    HOST = "host"
    DEVICE = "device"


class State(enum.Enum):
    """Where a session stands."""

    IDLE = "idle"
    OPENING = "opening"
    OPEN = "open"


class Ending(enum.Enum):
    """Why a session is over."""

    CLOSED = "the other end closed the session"
    REPLACED = "a new host session replaced it"
    RESET = "the device has restarted"
    TIMEOUT = "packets are not acknowledged any more"
    SILENT = "the other end does not answer any more"
    UNANSWERED = "nobody answers"
    VERSION = "the other end speaks another version of the protocol"


@dataclass(frozen=True, slots=True)
class Opened:
    """A session has begun; nothing of an earlier one will come."""

    session: int


@dataclass(frozen=True, slots=True)
class Delivered:
    """The next message of the peer."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """The session is over; what was queued or on its way is gone.

    Args:
        why: the reason.
        detail: more about it, for the user; may be empty.
    """

    why: Ending
    detail: str = ""


SessionEvent = Opened | Delivered | Lost


def random_epoch() -> int:
    """An epoch: 32 random bits, never 0."""
    return secrets.randbelow(2**32 - 1) + 1


class ReliableSession:
    """One end of a session.

    Args:
        role: the host opens, the device accepts.
        epoch: draws this side's epoch, 1..2**32-1, at each opening.
        bytes_per_second: line rate where it is known.
    """

    def __init__(
        self, role: Role, *, epoch: Callable[[], int] = random_epoch, bytes_per_second: float | None = None
    ) -> None:
        self.role = role
        self.state = State.IDLE
        self._epoch = epoch
        self._rate = bytes_per_second
        self._session = 0
        self._offered: int | None = None  # device: a session accepted by us that the host has not used yet
        self._events: deque[SessionEvent] = deque()
        self._undelivered = 0  # messages among the events
        self._control: deque[Packet] = deque(maxlen=8)
        self._open_attempts = 0
        self._open_due = 0.0
        self._begin(0, 0.0)
        self.ignored = 0
        """Packets dropped because they made no sense: unknown kind, another session."""

    def _begin(self, session: int, now: float) -> None:
        self._session = session
        self.sending = SendWindow(self._rate)
        self.receiving = ReceiveWindow()
        self._owes_ack = False
        self._credit_said = limits.WINDOW
        self._asked_at = now
        self._heard_at = now
        self._unanswered = 0

    # ------------------------------------------------------------------ what the owner calls

    def open(self, now: float) -> None:
        """Host: begin a session, giving up the one there may be. Ends in the event Opened or Lost."""
        if self.role is not Role.HOST:
            raise LocalProtocolError("only the host opens a session")
        self._forget_messages()
        self._control.clear()
        self._begin(self._epoch() << 32, now)
        self.state = State.OPENING
        self._open_attempts = 0
        self._open_due = now

    def close(self) -> None:
        """Say good-bye, once, in the next packet. The peer finds out by itself if that packet is lost."""
        if self.state is State.OPEN:
            self._control.append(Packet(Kind.CLOSE, self._session))
        self.state = State.IDLE

    @property
    def number(self) -> int:
        """The session's number: host's epoch << 32 | device's epoch; the last one's while there is none."""
        return self._session

    @property
    def room(self) -> int:
        """Messages that `send` takes now; 0 without a session."""
        return self.sending.room if self.state is State.OPEN else 0

    def send(self, body: bytes) -> None:
        """Queue a message for the peer.

        Raises:
            LocalProtocolError: there is no session or no room (see `room`), or the message is empty or too long.
        """
        if self.room == 0:
            raise LocalProtocolError("there is no room for a message" if self.state is State.OPEN else "no session")
        if not 1 <= len(body) <= limits.MAX_MESSAGE:
            raise LocalProtocolError(f"a message of {len(body)} bytes is outside 1..{limits.MAX_MESSAGE}")
        self.sending.put(body)

    def next_event(self) -> SessionEvent | None:
        """The next thing that happened. Messages not taken here shrink the credit that the peer gets."""
        if not self._events:
            return None
        event = self._events.popleft()
        if isinstance(event, Delivered):
            self._undelivered -= 1
            if self._credit_said < limits.WINDOW // 2 <= self._credit():
                self._owes_ack = True
        return event

    def receive(self, now: float, data: bytes) -> None:
        """Take one packet from the line, whatever it is."""
        try:
            packet = packets.decode(data)
        except RemoteProtocolError:
            self.ignored += 1
            return
        if isinstance(packet, OtherVersion):
            self._receive_other_version(packet)
        elif self.role is Role.HOST:
            self._receive_as_host(now, packet)
        else:
            self._receive_as_device(now, packet)

    def next_packet(self, now: float) -> bytes | None:
        """The next packet to put on the line, None: nothing to send now. Ask again at `deadline` at the latest."""
        if self._control:
            return self._control.popleft().encode()
        if self.state is not State.OPEN:
            return self._opening(now) if self.state is State.OPENING else None
        self.sending.expire(now)
        if self.sending.fruitless > limits.MAX_RETRANSMISSIONS:
            self._lose(Ending.TIMEOUT)
            return None
        data = self.sending.next(now)
        if data is not None:
            return self._with_acknowledgement(Kind.DATA, *data)
        if self._ask_due() <= now:
            return self._question(now)
        return self._with_acknowledgement(Kind.ACK) if self._owes_ack else None

    def deadline(self) -> float | None:
        """The time at which `next_packet` has something to do even if nothing happens before; None: never."""
        if self.state is State.OPENING:
            return self._open_due
        if self.state is not State.OPEN:
            return None
        due = self.sending.deadline()
        ask = self._ask_due()
        return min(ask, due) if due is not None else (ask if ask != float("inf") else None)

    # ------------------------------------------------------------------ sending

    def _opening(self, now: float) -> bytes | None:
        if now < self._open_due:
            return None
        if self._open_attempts >= limits.OPEN_ATTEMPTS:
            self._lose(Ending.UNANSWERED)
            return None
        self._open_attempts += 1
        self._open_due = now + limits.INITIAL_TIMEOUT
        return Packet(Kind.OPEN, self._session).encode()

    def _question(self, now: float) -> bytes | None:
        if self._unanswered >= limits.UNANSWERED_PINGS:
            self._lose(Ending.SILENT)
            return None
        self._unanswered += 1
        self._asked_at = now
        return self._with_acknowledgement(Kind.PING)

    def _credit(self) -> int:
        return max(0, min(limits.INBOX - self._undelivered, limits.WINDOW))

    def _with_acknowledgement(self, kind: Kind, sequence: int = 0, body: bytes = b"") -> bytes:
        self._owes_ack = False
        self._credit_said = self._credit()
        acknowledged, selective = self.receiving.acknowledgement()
        return Packet(kind, self._session, sequence, acknowledged, selective, self._credit_said, body).encode()

    def _ask_due(self) -> float:
        """When to send a PING: the host after silence; either side when it is starved of credit."""
        if self.sending.starved:
            return max(self._asked_at, self._heard_at) + self.sending.timeout
        if self.role is Role.HOST:
            return max(self._asked_at, self._heard_at) + limits.KEEPALIVE
        return float("inf")

    # ------------------------------------------------------------------ receiving

    def _receive_as_host(self, now: float, packet: Packet) -> None:
        if packet.kind is Kind.ACCEPT and packet.session >> 32 == self._session >> 32:
            if self.state is State.OPENING:
                self._begin(packet.session, now)
                self.state = State.OPEN
                self._events.append(Opened(packet.session))
            self._owes_ack |= packet.session == self._session  # else the device waits for a first packet
        elif self.state is State.OPEN and packet.session == self._session:
            if packet.kind is Kind.RESET:
                self._lose(Ending.RESET)
            else:
                self._receive_in_session(now, packet)
        else:
            self.ignored += 1

    def _receive_as_device(self, now: float, packet: Packet) -> None:
        if packet.kind is Kind.OPEN:
            self._offer(packet.session >> 32)
            return
        if self._offered is not None and packet.session == self._offered:
            self._adopt(now)
        if self.state is State.OPEN and packet.session == self._session:
            self._receive_in_session(now, packet)
            return
        self.ignored += 1
        if packet.kind in {Kind.DATA, Kind.ACK, Kind.PING}:
            self._control.append(Packet(Kind.RESET, packet.session))

    def _offer(self, host_epoch: int) -> None:
        """Device: answer an OPEN, always with the same session for the same opening."""
        if self.state is State.OPEN and self._session >> 32 == host_epoch:
            session = self._session
        elif self._offered is not None and self._offered >> 32 == host_epoch:
            session = self._offered
        else:
            session = self._offered = host_epoch << 32 | self._epoch()
        self._control.append(Packet(Kind.ACCEPT, session))

    def _adopt(self, now: float) -> None:
        """Device: the host uses the session offered; whatever was before is over."""
        assert self._offered is not None
        if self.state is State.OPEN:
            self._lose(Ending.REPLACED)
        self._forget_messages()
        self._begin(self._offered, now)
        self._offered = None
        self.state = State.OPEN
        self._events.append(Opened(self._session))

    def _receive_in_session(self, now: float, packet: Packet) -> None:
        self._heard_at = now
        self._unanswered = 0
        if packet.kind is Kind.CLOSE:
            self._lose(Ending.CLOSED)
            return
        if packet.kind not in {Kind.DATA, Kind.ACK, Kind.PING}:
            self.ignored += 1
            return
        self.sending.acknowledge(now, packet.acknowledged, packet.selective, packet.credit)
        if packet.kind is Kind.ACK:
            return
        self._owes_ack = True
        if packet.kind is Kind.DATA:
            for body in self.receiving.accept(packet.sequence, packet.body, limits.INBOX - self._undelivered):
                self._events.append(Delivered(body))
                self._undelivered += 1

    def _receive_other_version(self, packet: OtherVersion) -> None:
        self.ignored += 1
        if self.role is Role.DEVICE and packet.kind == Kind.OPEN:
            self._control.append(Packet(Kind.RESET, 0))  # its first byte tells the host our version
        elif self.role is Role.HOST and self.state is State.OPENING:
            self._lose(Ending.VERSION, f"it speaks {packet.version}, this is {PROTOCOL}")

    def _lose(self, why: Ending, detail: str = "") -> None:
        self.state = State.IDLE
        self._events.append(Lost(why, detail))

    def _forget_messages(self) -> None:
        self._events = deque(event for event in self._events if not isinstance(event, Delivered))
        self._undelivered = 0
