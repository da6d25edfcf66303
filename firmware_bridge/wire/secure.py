"""TLS inside a session: what a session delivers in order, both ways, is the byte stream that TLS asks for.

A `SecureSession` stands between a session and its messages. Each session begins with a handshake of its own; until it
is done the owner hears of no session, and nothing that came outside of TLS is ever taken for a message. Whether a line
has TLS is each end's own setting and is not negotiated, so nobody in between can talk it away. Python's `ssl` does all
of it, on buffers in memory; keys, certificates and what they are good for: link/tls.py.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from typing import Final

from firmware_bridge import limits
from firmware_bridge.errors import LocalProtocolError, RemoteProtocolError
from firmware_bridge.wire.session import Delivered, Lost, Opened, Session, SessionEvent
from firmware_bridge.wire.states import Ending, Role
from firmware_bridge.wire.stream import MessageReader, pack

Security = Callable[[ssl.MemoryBIO, ssl.MemoryBIO], ssl.SSLObject]
"""Makes this end of one TLS connection, given the buffers of what arrives and of what leaves."""

_RECORDS: Final = range(20, 24)
"""First bytes that a TLS record may have. A message, a CBOR map, begins with 160 or more."""


def words(error: ssl.SSLError) -> str:
    """What TLS says, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (getattr(error, "reason", None) or str(error)).lower().replace("_", " ")


class SecureSession:
    """One end of a session with TLS in it; to its owner, a session like any other.

    Args:
        session: the session below.
        security: makes this end's TLS, anew for each session.
        refusal: the message that a device says in plain to a host that speaks without TLS.
    """

    def __init__(self, session: Session, security: Security, refusal: bytes) -> None:
        self._session = session
        self._security = security
        self._refusal = refusal
        self._events: deque[SessionEvent] = deque()
        self._begin(0)
        self._is_over = True

    def _begin(self, number: int) -> None:
        self._number = number
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = self._security(self._incoming, self._outgoing)
        self._reader = MessageReader()
        self._received = 0  # bytes, until the handshake is done
        self._is_established = False
        self._is_trusted = False  # a message has come: the other end has taken our certificate as well
        self._is_over = False

    @property
    def is_open(self) -> bool:
        """Whether there is a session whose handshake is done."""
        is_this = self._number == self._session.number and self._session.is_open
        return is_this and self._is_established and not self._is_over

    @property
    def room(self) -> int:
        """Messages that `send` takes now; 0 without a session."""
        return self._session.room if self.is_open and not self._outgoing.pending else 0

    def send(self, body: bytes) -> None:
        """Queue a message for the peer. LocalProtocolError: there is no session or no room (see `room`)."""
        if self.room == 0:
            raise LocalProtocolError("there is no room for a message" if self.is_open else "no session")
        self._tls.write(pack(body))
        self.flush()

    def flush(self) -> None:
        """Give the session what TLS has ready, as far as there is room."""
        while self._outgoing.pending and self._number == self._session.number and self._session.room:
            self._session.send(self._outgoing.read(limits.MAX_MESSAGE))

    def next_event(self) -> SessionEvent | None:
        """The next thing that happened. Takes one message of TLS at a time from the session below."""
        while not self._events and (event := self._session.next_event()) is not None:
            if isinstance(event, Opened):
                self._begin(event.session)
                self._shake()
            elif isinstance(event, Delivered):
                self._receive(event.body)
            else:
                if not self._is_over or self._number != self._session.number:  # else its end has been told
                    self._events.append(event)
                self._is_over = True
            self.flush()
        return self._events.popleft() if self._events else None

    # ------------------------------------------------------------------ inside

    def _receive(self, body: bytes) -> None:
        if self._is_over:
            return
        if not self._received and body[0] not in _RECORDS:
            self._refuse_plain()
            return
        try:
            self._incoming.write(body)
            if not self._is_established:
                self._limit(len(body))
                self._shake()
            self._read()
        except ssl.SSLError as error:
            self._end(words(error))
        except RemoteProtocolError as error:
            self._end(str(error))

    def _limit(self, size: int) -> None:
        self._received += size
        if self._received > limits.HANDSHAKE:
            raise RemoteProtocolError(f"a handshake of more than {limits.HANDSHAKE} bytes")

    def _shake(self) -> None:
        """Go on with the handshake as far as it goes; a device has nothing to say before the host has."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        self._is_established = True
        self._events.append(Opened(self._number))

    def _read(self) -> None:
        while self._is_established:
            try:
                plain = self._tls.read(limits.READ_SIZE)
            except ssl.SSLWantReadError:
                return
            if not plain:
                raise RemoteProtocolError("the other end has ended TLS")
            for message in self._reader.feed(plain):
                self._is_trusted = True
                self._events.append(Delivered(message))

    def _refuse_plain(self) -> None:
        """The other end speaks without TLS. A device tells it so, in plain, and hears nothing of what it says."""
        if self._session.role is Role.DEVICE and self._session.room:
            self._session.send(self._refusal)
        self._end("it speaks without TLS")

    def _end(self, detail: str) -> None:
        """Nothing more is heard in this session. The device leaves it to the host to close: TLS has said why."""
        self._is_over = True
        self._events.append(Lost(Ending.VIOLATION if self._is_trusted else Ending.UNTRUSTED, detail))
        if self._session.role is Role.HOST:
            self._session.close()
