"""A session: every message arrives once and in order, in both directions, whatever the line does to single packets.

Sans-IO: packets in, packets and events out, the time passed in. The host opens a session and the device accepts it;
each side adds an epoch of its own, drawn anew at each opening, so that packets of an earlier life of either side are
told apart and a restarted peer starts clean. The device keeps an old session until the first packet of the new one,
so that a stale OPEN on the line cannot break anything. State table: states.py.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from firmware_bridge import limits
from firmware_bridge.errors import LocalProtocolError, RemoteProtocolError
from firmware_bridge.wire import packet as packets
from firmware_bridge.wire.packet import Kind, OtherVersion, Packet
from firmware_bridge.wire.states import Action, Ending, Input, Role, State, after, classify
from firmware_bridge.wire.stream import LENGTH_BYTES, MessageReader, ReceiveWindow
from firmware_bridge.wire.version import PROTOCOL
from firmware_bridge.wire.window import SendWindow


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


class Session:
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
        self._offered: int | None = None  # device: a session accepted by us that the host has not used yet
        self._events: deque[SessionEvent] = deque()
        self._undelivered = 0  # bytes of the stream in messages among the events
        self._control: deque[Packet] = deque(maxlen=8)
        self._open_attempts = 0
        self._open_due = 0.0
        self._begin(0, 0.0)
        self.heard = 0
        """Packets of any session received, undamaged."""
        self.ignored = 0
        """Packets dropped because they made no sense: unknown kind, another session."""

    def _begin(self, session: int, now: float) -> None:
        self._session = session
        self.sending = SendWindow(self._rate)
        self.receiving = ReceiveWindow()
        self._reader = MessageReader()
        self._owes_ack = False
        self._answers: deque[int] = deque(maxlen=4)  # numbers of PINGs to answer
        self._credit_said = limits.WINDOW
        self._asked_at = now
        self._heard_at = now
        self._unanswered = 0
        self._is_hurried = False
        self._question = (0, 0)  # number of the last PING; packets given out before it
        self._probe_due = now  # the next one may be asked amid data: the last was answered, or it is lost

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

    def abandon(self) -> None:
        """Host: try no longer to open a session."""
        self.state = State.IDLE

    def link_lost(self) -> None:
        """The line under the session is gone: so is the session."""
        if self.state is not State.IDLE:
            self._lose(Ending.LINK)

    def set_rate(self, bytes_per_second: float | None) -> None:
        """The line has another rate from here on."""
        self._rate = bytes_per_second
        self.sending.set_rate(bytes_per_second)

    def hurry(self) -> None:
        """Ask at once whether the other end is there, and again and again, until it is heard."""
        self._is_hurried = True
        self._unanswered = 0
        self._asked_at = float("-inf")

    @property
    def number(self) -> int:
        """The session's number: host's epoch << 32 | device's epoch; the last one's while there is none."""
        return self._session

    @property
    def is_open(self) -> bool:
        """Whether there is a session."""
        return self.state is State.OPEN

    @property
    def room(self) -> int:
        """Messages that `send` takes now; 0 without a session."""
        return self.sending.room if self.is_open else 0

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
            self._undelivered -= LENGTH_BYTES + len(event.body)
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
            return
        what = classify(self.role, packet.kind, packet.session, self._session, self._offered)
        before = self.state
        self.heard += 1
        self.state, action = after(self.role, before, what)
        self._do(action, before, now, packet)

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
        return self._next_in_session(now)

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

    def _next_in_session(self, now: float) -> bytes | None:
        """Answers (the peer measures by them), a question that is due, data, other questions, an acknowledgement."""
        if self._answers:
            return self._with_acknowledgement(Kind.ACK, self._answers.popleft())
        wants_probe = self.sending.wants_probe and self._question[1] < self.sending.orders
        if wants_probe and self._probe_due <= now:
            return self._ping(now)
        data = self.sending.next(now)
        if data is not None:
            return self._with_acknowledgement(Kind.DATA, *data)
        if wants_probe:
            return self._ping(now)
        if self._ask_due() <= now:
            return self._ask(now)
        return self._with_acknowledgement(Kind.ACK) if self._owes_ack else None

    def _opening(self, now: float) -> bytes | None:
        if now < self._open_due:
            return None
        if self._open_attempts >= limits.OPEN_ATTEMPTS:
            self._lose(Ending.UNANSWERED)
            return None
        self._open_attempts += 1
        self._open_due = now + limits.INITIAL_TIMEOUT
        return Packet(Kind.OPEN, self._session).encode()

    def _ask(self, now: float) -> bytes | None:
        if self._unanswered >= limits.UNANSWERED_PINGS:
            self._lose(Ending.SILENT)
            return None
        self._unanswered += 1
        self._asked_at = now
        return self._ping(now)

    def _ping(self, now: float) -> bytes:
        self._probe_due = now + self.sending.timeout
        self._question = (self._question[0] % 0xFFFFFFFF + 1, self.sending.orders)
        return self._with_acknowledgement(Kind.PING, self._question[0])

    def _credit(self) -> int:
        return max(0, limits.WINDOW - self._undelivered - self._reader.held)

    def _with_acknowledgement(self, kind: Kind, offset: int = 0, body: bytes = b"") -> bytes:
        self._owes_ack = False
        self._credit_said = self._credit()
        acknowledged, ranges = self.receiving.acknowledgement()
        return Packet(kind, self._session, offset, acknowledged, ranges, self._credit_said, body).encode()

    def _ask_due(self) -> float:
        """When to send a PING: the host after silence; either side when it is starved of credit."""
        if self._is_hurried:
            return self._asked_at + limits.HURRY
        if self.sending.starved:
            return max(self._asked_at, self._heard_at) + self.sending.timeout
        if self.role is Role.HOST:
            return max(self._asked_at, self._heard_at) + limits.KEEPALIVE
        return float("inf")

    # ------------------------------------------------------------------ receiving

    def _do(self, action: Action, before: State, now: float, packet: Packet) -> None:
        match action:
            case Action.TAKE:
                self._take(now, packet)
            case Action.OFFER:
                self._offer(packet.session >> 32)
            case Action.ADOPT:
                self._adopt(before, now)
                what = Input.CLOSE if packet.kind is Kind.CLOSE else Input.TRAFFIC
                self.state, then = after(self.role, self.state, what)
                self._do(then, State.OPEN, now, packet)
            case Action.BEGIN:
                self._begin(packet.session, now)
                self._events.append(Opened(packet.session))
                self._owes_ack = True  # the device waits for a first packet
            case Action.CONFIRM:
                self._owes_ack |= packet.session == self._session
            case Action.END_RESET:
                self._lose(Ending.RESET)
            case Action.END_CLOSED:
                self._lose(Ending.CLOSED)
            case _:
                self._pass_over(action, packet)

    def _pass_over(self, action: Action, packet: Packet) -> None:
        self.ignored += 1
        if action is Action.SAY_RESET:
            self._control.append(Packet(Kind.RESET, packet.session))

    def _receive_other_version(self, packet: OtherVersion) -> None:
        self.ignored += 1
        what = Input.OTHER_OPEN if packet.kind == Kind.OPEN else Input.OTHER_VERSION
        self.state, action = after(self.role, self.state, what)
        if action is Action.SAY_VERSION:
            self._control.append(Packet(Kind.RESET, 0))  # its first byte tells the host our version
        elif action is Action.END_VERSION:
            self._lose(Ending.VERSION, f"it speaks {packet.version}, this is {PROTOCOL}")

    def _offer(self, host_epoch: int) -> None:
        """Device: answer an OPEN, always with the same session for the same opening."""
        if self.state is State.OPEN and self._session >> 32 == host_epoch:
            session = self._session
        elif self._offered is not None and self._offered >> 32 == host_epoch:
            session = self._offered
        else:
            session = self._offered = host_epoch << 32 | self._epoch()
        self._control.append(Packet(Kind.ACCEPT, session))

    def _adopt(self, before: State, now: float) -> None:
        """Device: the host uses the session offered; whatever was before is over."""
        assert self._offered is not None
        if before is State.OPEN:
            self._events.append(Lost(Ending.REPLACED))
        self._forget_messages()
        self._begin(self._offered, now)
        self._offered = None
        self._events.append(Opened(self._session))

    def _take(self, now: float, packet: Packet) -> None:
        self._heard_at = now
        self._unanswered = 0
        self._is_hurried = False
        self.sending.acknowledge(now, packet.acknowledged, packet.ranges, packet.credit)
        if packet.kind is Kind.ACK:
            if packet.offset and packet.offset == self._question[0]:
                self.sending.overtaken(self._question[1])
                self._probe_due = now
            return
        self._owes_ack = True
        if packet.kind is Kind.PING:
            self._answers.append(packet.offset)
            return
        ready = self.receiving.accept(packet.offset, packet.body, self._credit())
        if ready:
            self._deliver(ready)

    def _deliver(self, ready: bytes) -> None:
        try:
            bodies = self._reader.feed(ready)
        except RemoteProtocolError as error:
            self._control.append(Packet(Kind.CLOSE, self._session))
            self._lose(Ending.VIOLATION, str(error))
            return
        for body in bodies:
            self._events.append(Delivered(body))
            self._undelivered += LENGTH_BYTES + len(body)

    def _lose(self, why: Ending, detail: str = "") -> None:
        self.state = State.IDLE
        self._events.append(Lost(why, detail))

    def _forget_messages(self) -> None:
        self._events = deque(event for event in self._events if not isinstance(event, Delivered))
        self._undelivered = 0
