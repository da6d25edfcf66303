"""The device's loop: one thread, one `select` over the link and the handler's wake files."""

from __future__ import annotations

from collections.abc import Callable

from firmware_bridge.handler import DeviceHandler
from firmware_bridge.link.base import Link


def serve(link: Link, handler: DeviceHandler, *, stop: Callable[[], bool] = lambda: False) -> None:
    """Serve one link until `stop()` says so (asked at least every second) or the link is lost.

    Use: `with open_port(port, baud) as link: serve(link, handler)`, with `open_port` from link.serial.

    Raises:
        LinkError: the port went away (unplugged, closed at the other end).
    """
    raise NotImplementedError
