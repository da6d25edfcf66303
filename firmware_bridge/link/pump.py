"""One round of moving bytes between a link and a connection; never waits. Both ends' loops are built on it."""

from __future__ import annotations

from firmware_bridge.errors import LinkError
from firmware_bridge.link.base import Link
from firmware_bridge.wire.connection import Connection
from firmware_bridge.wire.rate import RateChange
from firmware_bridge.wire.states import Role


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


def change_rate(link: Link, connection: Connection, rate: RateChange, now: float, *, is_full: bool) -> None:
    """Set the link's rate if it is time to. LinkError: the port takes neither the new rate nor the old one."""
    session = connection.session
    is_flushed = not is_full and session.sending.idle and not connection.to_write(now)
    before = rate.baud
    baud = rate.turn(now, session.heard, is_open=connection.is_open, is_flushed=is_flushed)
    if baud is None:
        return
    try:
        link.set_baud(baud)
    except LinkError:
        rate.refused(before)
    session.set_rate(link.bytes_per_second)
    if not rate.is_settled and session.role is Role.HOST:
        session.hurry()
