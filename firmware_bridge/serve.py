"""The device's loop: one thread, one `poll` over the link and the handler's wake files."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from firmware_bridge.device import DeviceEndpoint
from firmware_bridge.handler import DeviceHandler
from firmware_bridge.link.base import Link
from firmware_bridge.link.pump import read_all, write_all
from firmware_bridge.link.wait import wait_for

_STOP_INTERVAL: Final = 0.1
"""Seconds between two looks at `stop`."""
_FAREWELL: Final = 0.2
"""Seconds that the last packet may take."""


def serve(link: Link, handler: DeviceHandler, *, stop: Callable[[], bool] = lambda: False) -> None:
    """Serve one link until `stop()` says so (asked ten times a second) or the link is lost.

    Use: `with open_port(port, baud) as link: serve(link, handler)`, with `open_port` from link.serial.

    Raises:
        LinkError: the port went away (unplugged, closed at the other end).
    """
    endpoint = DeviceEndpoint(handler, bytes_per_second=link.bytes_per_second)
    connection = endpoint.connection
    while not stop():
        now = time.monotonic()
        arrived = read_all(link, connection, now)
        happened = endpoint.process()
        wanted = handler.advance(now)
        happened = endpoint.process() or happened
        full = write_all(link, connection, now)
        if arrived or happened:
            continue
        due = None if full else connection.deadline()  # a full link takes nothing new, however late it is
        times = [at for at in (wanted, due) if at is not None]
        wait = min(max(0.0, min(times, default=now + _STOP_INTERVAL) - time.monotonic()), _STOP_INTERVAL)
        file = link.fileno()
        wait_for([file, *handler.wake_files()], [file] if full else [], wait)
    connection.session.close()
    until = time.monotonic() + _FAREWELL
    while write_all(link, connection, time.monotonic()) and time.monotonic() < until:
        wait_for([], [link.fileno()], _FAREWELL)
