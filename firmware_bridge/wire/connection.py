"""Bytes on the line <-> typed messages: frames, session and message codec in one, still without I/O or clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from firmware_bridge import limits
from firmware_bridge.errors import RemoteProtocolError
from firmware_bridge.wire import frame, messages
from firmware_bridge.wire.secure import SecureSession, Security
from firmware_bridge.wire.session import Delivered, Lost, Opened, Session, random_epoch
from firmware_bridge.wire.states import Role


@dataclass(frozen=True, slots=True)
class Received:
    """A message of the peer, valid in itself."""

    message: messages.Message


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The peer sent, undamaged, what is no message of this protocol."""

    error: RemoteProtocolError


ConnectionEvent = Opened | Lost | Received | Unreadable

_NO_TLS: Final = messages.Refused(0, messages.RefusalCode.UNAUTHENTICATED, "this line takes hosts with TLS only")


class Connection:
    """One end of the line.

    Args:
        role: the host opens, the device accepts.
        epoch: draws session epochs; tests pass their own.
        bytes_per_second: line rate where it is known.
        security: makes this end's TLS, which then every message goes through (secure.py); None: messages go in plain.
    """

    def __init__(
        self,
        role: Role,
        *,
        epoch: Callable[[], int] = random_epoch,
        bytes_per_second: float | None = None,
        security: Security | None = None,
    ) -> None:
        self.session = Session(role, epoch=epoch, bytes_per_second=bytes_per_second)
        self._secure = None if security is None else SecureSession(self.session, security, messages.encode(_NO_TLS))
        self._messages = self._secure or self.session
        self._decoder = frame.FrameDecoder()
        self._heard_at = 0.0
        self._console: list[str] = []
        self._console_size = 0
        self._writing = memoryview(b"")
        self.damaged = 0
        """Frames that did not survive the line, as far as one can tell: foreign bytes that are no text."""

    def receive(self, now: float, data: bytes) -> None:
        """Take bytes from the line."""
        self._heard_at = now
        self._sort(now, self._decoder.feed(data))

    def next_event(self) -> ConnectionEvent | None:
        """The next thing that happened; None: nothing (more)."""
        event = self._messages.next_event()
        if not isinstance(event, Delivered):
            return event
        try:
            return Received(messages.decode(event.body))
        except RemoteProtocolError as error:
            return Unreadable(error)

    @property
    def is_open(self) -> bool:
        """Whether there is a session; with TLS, one whose handshake is done."""
        return self._messages.is_open

    @property
    def room(self) -> int:
        """Messages that `send` takes now; 0 without a session."""
        return self._messages.room

    def link_lost(self) -> None:
        """The line is gone: so are the session, the frame that was being read and the one being written."""
        self.session.link_lost()
        self._decoder = frame.FrameDecoder()
        self._writing = memoryview(b"")

    def send(self, message: messages.Message) -> None:
        """Queue a message. LocalProtocolError: no session, no room, or the message is not allowed."""
        self._messages.send(messages.encode(message))

    def to_write(self, now: float) -> memoryview:
        """Bytes that the line should take next; empty: none now. Then `wrote` says how many it took.

        At most one frame is made ready ahead of the line, so that acknowledgements and retransmissions never queue
        behind stale bytes.
        """
        if not self._writing:
            if self._secure is not None:
                self._secure.flush()
            packet = self.session.next_packet(now)
            if packet is not None:
                self._writing = memoryview(frame.encode(packet))
        return self._writing

    def wrote(self, count: int) -> None:
        """The line took this many of the bytes of `to_write`."""
        self._writing = self._writing[count:]

    def deadline(self) -> float | None:
        """The time at which to call `to_write` even if nothing arrives before; None: never."""
        flush = self._heard_at + limits.QUIET if self._decoder.pending else None
        due = self.session.deadline()
        return min(due, flush) if due is not None and flush is not None else (flush if due is None else due)

    def tick(self, now: float) -> None:
        """Let the time pass: text on a line that has gone quiet is console text, though no boundary follows it."""
        if self._decoder.pending and now >= self._heard_at + limits.QUIET:
            self._sort(now, self._decoder.flush())

    def take_console(self) -> str:
        """Text that came outside frames since the last call: at most the newest limits.CONSOLE characters."""
        text, self._console, self._console_size = "".join(self._console), [], 0
        return text

    def _sort(self, now: float, pieces: list[frame.Packet | frame.Foreign]) -> None:
        for piece in pieces:
            if isinstance(piece, frame.Packet):
                self.session.receive(now, piece.data)
                continue
            text = piece.text()
            if text is None:
                self.damaged += 1
                continue
            self._console.append(text)
            self._console_size += len(text)
            if self._console_size > 2 * limits.CONSOLE:
                self._console = [self.take_console()[-limits.CONSOLE :]]
                self._console_size = len(self._console[0])
