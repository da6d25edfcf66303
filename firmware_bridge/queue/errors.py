"""The errors of the host's queue: exit code 13."""

from __future__ import annotations

from typing import ClassVar

from boards.errors import ExitCode
from firmware_bridge.errors import BridgeError


class QueueFault(BridgeError):  # noqa: N818  names what happened
    """The queue's file cannot be used, or does not know the job."""

    exit_code: ClassVar[ExitCode] = ExitCode.QUEUE


class QueueFull(QueueFault):
    """The queue has no room: its producer is faster than the devices."""
