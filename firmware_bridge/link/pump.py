"""One round of moving bytes between a link and a connection; never waits. Both ends' loops are built on it."""

from __future__ import annotations

from firmware_bridge.link.base import Link
from firmware_bridge.wire.connection import Connection


def read_all(link: Link, connection: Connection, now: float) -> bool:
    """Give the connection what has arrived (one read). Whether there was anything. LinkError: the link is gone."""
    data = link.read()
    if data:
        connection.receive(now, data)
    connection.tick(now)
    return bool(data)


def write_all(link: Link, connection: Connection, now: float) -> bool:
    """Write what the connection has, as far as the link takes it.

    Returns:
        Whether the link is full: wait until it is writable, then call again.

    Raises:
        LinkError: the link is gone.
    """
    while data := connection.to_write(now):
        count = link.write(data)
        connection.wrote(count)
        if count < len(data):
            return True
    return False
