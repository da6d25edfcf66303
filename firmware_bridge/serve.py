"""The device's loop: one thread, one `poll` over the link and the handler's wake files."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from firmware_bridge.device import DeviceEndpoint
from firmware_bridge.handler import DeviceHandler
from firmware_bridge.link.base import Link
from firmware_bridge.link.pump import change_rate, read_all, write_all
from firmware_bridge.link.wait import wait_for
from firmware_bridge.wire.rate import RateChange
from firmware_bridge.wire.secure import Security

_STOP_INTERVAL: Final = 0.1
"""Seconds between two looks at `stop`."""
_FAREWELL: Final = 0.2
"""Seconds that the last packet may take."""


def serve(
    link: Link,
    handler: DeviceHandler,
    *,
    stop: Callable[[], bool] = lambda: False,
    baud: int = 0,
    most_baud: int = 0,
    security: Security | None = None,
) -> None:
    """Serve one link until `stop()` says so (asked ten times a second) or the link is lost.

    Use: `with open_port(port, baud) as link: serve(link, handler)`, with `open_port` from link.serial.

    Args:
        link: an open link.
        handler: the device behind it.
        stop: whether to end.
        baud: bits a second that the link was opened at.
        most_baud: what it may be negotiated up to; 0: its rate stays.
        security: makes this end's TLS (link.tls.secured); None: hosts speak without.

    Raises:
        LinkError: the port went away (unplugged, closed at the other end).
    """
    endpoint = DeviceEndpoint(handler, bytes_per_second=link.bytes_per_second, most_baud=most_baud, security=security)
    connection, rate = endpoint.connection, RateChange(baud)
    while not stop():
        now = time.monotonic()
        arrived = read_all(link, connection, now)
        happened = endpoint.process()
        wanted = handler.advance(now)
        happened = endpoint.process() or happened
        full = write_all(link, connection, now)
        if endpoint.wanted_baud is not None:
            rate.want(endpoint.wanted_baud)
            endpoint.wanted_baud = None
        change_rate(link, connection, rate, now, is_full=full)
        if arrived or happened:
            continue
        due = None if full else connection.deadline()  # a full link takes nothing new, however late it is
        times = [at for at in (wanted, due, rate.deadline()) if at is not None]
        wait = min(max(0.0, min(times, default=now + _STOP_INTERVAL) - time.monotonic()), _STOP_INTERVAL)
        file = link.fileno()
        wait_for([file, *handler.wake_files()], [file] if full else [], wait)
    connection.session.close()
    until = time.monotonic() + _FAREWELL
    while write_all(link, connection, time.monotonic()) and time.monotonic() < until:
        wait_for([], [link.fileno()], _FAREWELL)
