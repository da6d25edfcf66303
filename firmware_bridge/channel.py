"""The host's thread: it owns the link and the connection, so that a session stays alive while the caller computes.

Everything that callers and thread share is guarded by one condition, `changed`; the thread never waits while it holds
it. Callers wait with a timeout that counts from the last sign of progress.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from firmware_bridge import limits
from firmware_bridge.errors import BridgeError, LinkError, RemoteProtocolError, SessionLost
from firmware_bridge.link.base import Link
from firmware_bridge.link.pump import read_all, write_all
from firmware_bridge.wire import messages
from firmware_bridge.wire.connection import Connection, Received, Unreadable
from firmware_bridge.wire.session import Lost, Opened
from firmware_bridge.wire.states import Ending, Role

_LOOK: Final = 0.25
"""Seconds after which a waiting caller looks whether there was progress (and Ctrl-C gets through)."""
_ANSWER_MEND: Final = "check that the device's supervisor runs, and that both ends use the same port and baud rate"


class Channel:
    """A link with a session that is kept alive.

    Args:
        link: an open link; the channel closes it.
        receive: called with each message of the device, in the channel's thread, with `changed` held; must not wait.
    """

    def __init__(self, link: Link, receive: Callable[[Received | Unreadable], None]) -> None:
        self.changed = threading.Condition()  # its lock is reentrant
        self.generation = 0
        """Sessions opened so far."""
        self._link = link
        self._receive = receive
        self._connection = Connection(Role.HOST, bytes_per_second=link.bytes_per_second)
        self._outgoing: deque[bytes] = deque()
        self._lost: Lost | None = Lost(Ending.UNANSWERED)
        self._failure: BridgeError | None = None
        self._closing = False
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._asleep = False
        self._thread = threading.Thread(target=self._run, name=f"bridge {link.name}", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------ callers

    def open_session(self, timeout: float) -> int:
        """Open a new session, giving up the one there may be; its generation.

        Raises:
            LinkError: nobody answers within `timeout` seconds, or the link is gone.
            RemoteProtocolError: the device speaks another version.
        """
        until = time.monotonic() + timeout
        with self.changed:
            before = self.generation
            self._begin_session()
            while self.generation == before:
                self._raise_failure()
                if self._lost is not None:
                    if self._lost.why is Ending.VERSION:
                        raise RemoteProtocolError(
                            f"{self._lost.why.value}: {self._lost.detail}",
                            where=self._link.name,
                            mend="install the same version of the kit on both",
                        )
                    self._begin_session()
                if time.monotonic() >= until:
                    raise LinkError(f"nobody answers within {timeout:g} s", where=self._link.name, mend=_ANSWER_MEND)
                self.changed.wait(min(_LOOK, max(0.0, until - time.monotonic())))
            return self.generation

    def post(self, message: messages.Message, generation: int, timeout: float) -> None:
        """Send a message in the session of this generation; waits for room.

        Raises:
            LocalProtocolError: the message is not allowed.
            SessionLost, LinkError: see `wait_for`.
        """
        body = messages.encode(message)
        with self.changed:
            self.wait_for(lambda: self._backlog() < limits.BACKLOG, generation, timeout, "the device to take more")
            self._raise_over(generation)
            self._outgoing.append(body)
            self._rouse()

    def wait_for(self, ready: Callable[[], bool], generation: int, timeout: float, what: str) -> None:
        """Wait until `ready()`, which is called with `changed` held.

        Args:
            ready: what to wait for.
            generation: the session in which it should happen.
            timeout: seconds without any progress: neither ready nor anything acknowledged by the device.
            what: names it, for the error.

        Raises:
            SessionLost: the session is over; a new one may be opened.
            LinkError: the link is gone, or the time is over.
        """
        with self.changed:
            acknowledged, since = self._acknowledged(), time.monotonic()
            while self.generation != generation or not ready():
                self._raise_over(generation)
                now = time.monotonic()
                if self._acknowledged() != acknowledged:
                    acknowledged, since = self._acknowledged(), now
                if now - since >= timeout:
                    raise LinkError(f"waited {timeout:g} s for {what}", where=self._link.name, mend=_ANSWER_MEND)
                self.changed.wait(min(_LOOK, since + timeout - now))

    def take_console(self) -> str:
        """Text that came on the line outside frames since last asked."""
        with self.changed:
            return self._connection.take_console()

    def counters(self) -> dict[str, int]:
        """Packets sent and sent again in this session, frames damaged on the way here since the link was opened."""
        with self.changed:
            sending = self._connection.session.sending
            return {
                "sent": sending.sent,
                "retransmitted": sending.retransmitted,
                "damaged": self._connection.damaged,
            }

    def close(self) -> None:
        """Send what is left, say good-bye, end the thread, close the link. Closing twice is fine."""
        with self.changed:
            self._closing = True
            self._rouse()
        self._thread.join()
        if self._waker >= 0:
            os.close(self._wake)
            os.close(self._waker)
            self._waker = -1
        self._link.close()

    # ------------------------------------------------------------------ shared state, `changed` held

    def _begin_session(self) -> None:
        self._raise_failure()
        self._lost = None
        self._outgoing.clear()
        self._connection.session.open(time.monotonic())
        self._rouse()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closing:
            raise LinkError("the client is closed", where=self._link.name)

    def _raise_over(self, generation: int) -> None:
        """Raise if the session of this generation is over."""
        self._raise_failure()
        if self._lost is not None or self.generation != generation:
            why = Ending.REPLACED if self._lost is None else self._lost.why
            raise SessionLost(why.value, where=self._link.name, mend=_ANSWER_MEND)

    def _backlog(self) -> int:
        return len(self._outgoing) + self._connection.session.sending.waiting

    def _acknowledged(self) -> tuple[int, int]:
        return self.generation, self._connection.session.sending.acknowledged

    def _rouse(self) -> None:
        if self._asleep:
            self._asleep = False
            os.write(self._waker, b"x")

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            while not self._closing:
                self._sleep(*self._round(), limits.KEEPALIVE)
            until = time.monotonic() + limits.FAREWELL
            while self._busy() and time.monotonic() < until:
                self._sleep(*self._round(), limits.FAREWELL / 10)
            with self.changed:
                self._connection.session.close()
            while self._round()[0] and time.monotonic() < until:
                self._sleep(True, None, limits.FAREWELL / 10)
        except BridgeError as error:
            self._failure = error
        finally:  # whatever ended the thread, nobody may wait for it any more
            with self.changed:
                if self._failure is None and not self._closing:
                    self._failure = LinkError("the thread that serves the link has died", where=self._link.name)
                self.changed.notify_all()

    def _busy(self) -> bool:
        with self.changed:
            return self._connection.is_open and (bool(self._outgoing) or not self._connection.session.sending.idle)

    def _round(self) -> tuple[bool, float | None]:
        """Move what can be moved. (The link is full; the time at which to come back)."""
        with self.changed:
            backlog, acknowledged = self._backlog(), self._acknowledged()
            read_all(self._link, self._connection, time.monotonic())
            happened = self._take_events()
            while self._outgoing and self._connection.room:
                self._connection.session.send(self._outgoing.popleft())
            full = write_all(self._link, self._connection, time.monotonic())
            happened = self._take_events() or happened  # writing finds timeouts
            if happened or self._backlog() < backlog or self._acknowledged() != acknowledged:
                self.changed.notify_all()
            self._asleep = True
            return full, None if full else self._connection.deadline()

    def _take_events(self) -> bool:
        happened = False
        while (event := self._connection.next_event()) is not None:
            happened = True
            if isinstance(event, Opened):
                self.generation += 1
            elif isinstance(event, Lost):
                self._lost = event
                self._outgoing.clear()
            else:
                self._receive(event)
        return happened

    def _sleep(self, full: bool, due: float | None, longest: float) -> None:
        wait = longest if due is None else min(longest, max(0.0, due - time.monotonic()))
        file = self._link.fileno()
        readable, _, _ = select.select([file, self._wake], [file] if full else [], [], wait)
        with self.changed:
            self._asleep = False
        if self._wake in readable:
            os.read(self._wake, 4096)
