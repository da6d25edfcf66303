"""The host's thread: it owns the link and the endpoint, so that a session stays alive while the caller computes.

Everything that callers and thread share is guarded by one condition, `changed`; the thread never waits while it holds
it. A link that goes away is opened again, if there is a way to, once a second.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from firmware_bridge import limits
from firmware_bridge.errors import BridgeError, LinkError
from firmware_bridge.host.endpoint import HostEndpoint
from firmware_bridge.link.base import Link
from firmware_bridge.link.pump import change_rate, read_all, write_all
from firmware_bridge.link.wait import wait_for
from firmware_bridge.wire.rate import RateChange
from firmware_bridge.wire.secure import Security

_LOOK: Final = 0.25
"""Seconds after which a waiting caller looks again (and Ctrl-C gets through)."""
_REOPEN: Final = 1.0
"""Seconds between two tries to open a link that went away."""


class Channel:
    """A link with an endpoint that is kept going.

    Args:
        link: an open link; the channel closes it.
        connect_timeout: seconds for the device to answer an opening.
        reopen: opens the link again after it went away, wherever it is now; None: it is gone for good.
        baud: bits a second that it is opened at.
        security: makes this end's TLS; None: none is wanted.
    """

    def __init__(
        self,
        link: Link,
        *,
        connect_timeout: float,
        reopen: Callable[[], Link] | None = None,
        baud: int = 0,
        security: Security | None = None,
    ) -> None:
        self.rate = RateChange(baud)
        self._baud = baud
        self.changed = threading.Condition()  # its lock is reentrant
        self.where = link.name
        self.endpoint = HostEndpoint(
            link.name, connect_timeout=connect_timeout, bytes_per_second=link.bytes_per_second, security=security
        )
        self._link: Link | None = link
        self._reopen = reopen
        self._reopen_at = 0.0
        self._closing = False
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._asleep = False
        self._thread = threading.Thread(target=self._run, name=f"bridge {link.name}", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------ callers

    def wait_until(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until `ready()`, which is called with `changed` held. Whether it is.

        Raises:
            LinkError: the channel is closed, or its thread is gone; the endpoint says why.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with self.changed:
            self.rouse()
            while not ready():
                if self.endpoint.failure is not None:
                    raise self.endpoint.failure
                if self._closing:
                    raise LinkError("the client is closed", where=self.where)
                left = _LOOK if until is None else min(_LOOK, until - time.monotonic())
                if left <= 0:
                    return False
                self.changed.wait(left)
        return True

    def rouse(self) -> None:
        """There is something new to do; called with `changed` held."""
        if self._asleep and self._waker >= 0:
            self._asleep = False
            os.write(self._waker, b"x")

    def close(self) -> None:
        """Send what is left, say good-bye, end the thread, close the link. Closing twice is fine."""
        with self.changed:
            self._closing = True
            self.rouse()
            self.changed.notify_all()
        self._thread.join()
        if self._waker >= 0:
            os.close(self._wake)
            os.close(self._waker)
            self._waker = -1
        if self._link is not None:
            self._link.close()

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn(limits.KEEPALIVE)
            until = time.monotonic() + limits.FAREWELL
            while self._busy() and time.monotonic() < until:
                self._turn(limits.FAREWELL / 10)
            with self.changed:
                self.endpoint.connection.session.close()
            while self._link is not None and self._round(self._link)[0] and time.monotonic() < until:
                wait_for([], [self._link.fileno()], limits.FAREWELL / 10)
        except BridgeError as error:
            with self.changed:
                self.endpoint.fail(error)
        finally:  # whatever ended the thread, nobody may wait for it any more
            with self.changed:
                if self.endpoint.failure is None:
                    what = "the client is closed" if self._closing else "the thread that serves the link has died"
                    self.endpoint.fail(LinkError(what, where=self.where))
                self.changed.notify_all()

    def _turn(self, longest: float) -> None:
        """One round, and the wait for the next."""
        if self._link is None:
            self._open_again()
            self._sleep([], [], self._reopen_at, min(longest, _REOPEN))
            return
        link = self._link
        try:
            full, due = self._round(link)
            self._sleep([link.fileno()], [link.fileno()] if full else [], due, longest)
        except LinkError as error:
            self._lose_link(link, error)

    def _round(self, link: Link) -> tuple[bool, float | None]:
        """Move what can be moved. (The link is full; the time at which to come back)."""
        with self.changed:
            connection = self.endpoint.connection
            happened = read_all(link, connection, time.monotonic())
            happened = self.endpoint.process(time.monotonic()) or happened
            full = write_all(link, connection, time.monotonic())
            happened = self.endpoint.process(time.monotonic()) or happened  # writing made room, or found timeouts
            full = full or write_all(link, connection, time.monotonic())
            was_settled = self.rate.is_settled
            change_rate(link, connection, self.rate, time.monotonic(), is_full=full)
            if happened or self.rate.is_settled != was_settled:
                self.changed.notify_all()
            self._asleep = True
            due = [at for at in (self.endpoint.deadline(), self.rate.deadline()) if at is not None]
            return full, None if full else min(due, default=None)

    def _busy(self) -> bool:
        with self.changed:
            is_open = self._link is not None and self.endpoint.connection.is_open
            return is_open and (not self.endpoint.is_flushed)

    def _sleep(self, readable: list[int], writable: list[int], due: float | None, longest: float) -> None:
        wait = longest if due is None else min(longest, max(0.0, due - time.monotonic()))
        ready, _ = wait_for([*readable, self._wake], writable, wait)
        with self.changed:
            self._asleep = False
        if self._wake in ready:
            os.read(self._wake, 4096)

    def _lose_link(self, link: Link, error: LinkError) -> None:
        with contextlib.suppress(OSError):  # it is gone already
            link.close()
        self._link = None
        if self._reopen is None or self._closing:
            raise error
        with self.changed:
            self.endpoint.link_lost(error)
            self.endpoint.process(time.monotonic())
            self.changed.notify_all()
        self._reopen_at = time.monotonic()

    def _open_again(self) -> None:
        """Try to get the link back; meanwhile the endpoint's clock goes on."""
        assert self._reopen is not None
        if time.monotonic() >= self._reopen_at:
            with contextlib.suppress(BridgeError):  # not back yet; whoever waits is told in time
                self._link = self._reopen()
            self._reopen_at = time.monotonic() + _REOPEN
        with self.changed:
            if self._link is not None:
                self.endpoint.link_back(self._link.bytes_per_second)
                self.rate = RateChange(self._baud)
            self.endpoint.process(time.monotonic())
            while self._link is None and self.endpoint.connection.to_write(time.monotonic()):
                self.endpoint.connection.wrote(len(self.endpoint.connection.to_write(time.monotonic())))
            self.changed.notify_all()
            self._asleep = True
