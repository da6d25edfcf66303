"""Ports that a running `watch`, or a `send`, has: nobody else can ask the device there, but the queue knows it."""

from __future__ import annotations

import os
from pathlib import Path

from firmware_bridge.errors import PortTaken
from firmware_bridge.link.discover import secure_line
from firmware_bridge.link.holders import holders
from firmware_bridge.queue.queue import JobQueue
from firmware_bridge.queue.records import DeviceRecord, lock_path


def served(port: str, error: PortTaken, queue_path: Path) -> DeviceRecord | None:
    """The device on a port that could not be opened because the process that serves this queue has it; else None.

    Args:
        port: as the user names it.
        error: of opening it.
        queue_path: the queue's file.

    Raises:
        QueueFault: the queue cannot be read.
    """
    server = {each.pid for each in holders(lock_path(queue_path))}
    if not server & {each.pid for each in error.holders}:
        return None
    with JobQueue(queue_path) as queue:
        return next((each for each in queue.devices() if _file(each.port) == _file(port)), None)


def _file(port: str) -> str:
    found = secure_line(port)
    return os.path.realpath(port if found is None else found[1])
