"""Waiting for files: poll, because select cannot name files from 1024 on, and a host of many devices has them."""

from __future__ import annotations

import math
import select
from collections.abc import Iterable


def wait_for(readable: Iterable[int], writable: Iterable[int], seconds: float | None) -> tuple[set[int], set[int]]:
    """Wait until a file is readable or writable; (those that are readable, those that are writable).

    One that hung up or failed counts as what was asked of it: reading or writing tells what is the matter.

    Args:
        readable: files to read from.
        writable: files to write to.
        seconds: at most; None: without end.
    """
    wanted: dict[int, int] = {}
    for file in readable:
        wanted[file] = select.POLLIN
    for file in writable:
        wanted[file] = wanted.get(file, 0) | select.POLLOUT
    poll = select.poll()
    for file, events in wanted.items():
        poll.register(file, events)
    broken = select.POLLHUP | select.POLLERR | select.POLLNVAL
    can_read, can_write = set(), set()
    for file, events in poll.poll(None if seconds is None else math.ceil(max(0.0, seconds) * 1000)):
        if wanted[file] & select.POLLIN and events & (select.POLLIN | broken):
            can_read.add(file)
        if wanted[file] & select.POLLOUT and events & (select.POLLOUT | broken):
            can_write.add(file)
    return can_read, can_write
