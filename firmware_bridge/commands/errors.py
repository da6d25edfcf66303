"""What a command refuses before a device sees it."""

from __future__ import annotations

from typing import ClassVar

from boards.errors import ExitCode
from firmware_bridge.errors import BridgeError


class CommandError(BridgeError):
    """The command line asks for what cannot be."""

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE


class PayloadError(BridgeError):
    """A file cannot be a job's payload."""

    exit_code: ClassVar[ExitCode] = ExitCode.JOB_INPUT


class SomeJobsFailed(BridgeError):  # noqa: N818  names what happened
    """At least one of the jobs that were sent did not end in a result."""

    exit_code: ClassVar[ExitCode] = ExitCode.JOB_FAILED


class WrongInput(SomeJobsFailed):
    """Some jobs failed, each of them because of its own input."""

    exit_code: ClassVar[ExitCode] = ExitCode.JOB_INPUT
