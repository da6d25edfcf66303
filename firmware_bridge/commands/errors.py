"""What a command refuses before a device sees it."""

from __future__ import annotations

from typing import ClassVar

from firmware_bridge.errors import BridgeError


class CommandError(BridgeError):
    """The command line asks for what cannot be."""

    exit_code: ClassVar[int] = 2


class PayloadError(BridgeError):
    """A file cannot be a job's payload."""

    exit_code: ClassVar[int] = 12


class SomeJobsFailed(BridgeError):  # noqa: N818  names what happened
    """At least one of the jobs that were sent did not end in a result."""

    exit_code: ClassVar[int] = 11
