"""The errors of the bridge, split by blame.

KitError
  BridgeError            anything below
    LocalProtocolError   our own caller asked for what the protocol does not allow (9)
    RemoteProtocolError  the peer sent what the protocol does not allow (9)
      UnknownMessage     a message type this version does not know (9)
    PortError            no port, several, taken, not permitted (8)
      PortTaken          another program has it (8)
      PeerError          who is there has not proved who it is, or does not believe us (8)
    LinkError            the link was there and is lost (9)
      SessionLost        the same, but the line is there: a new session may be opened (9)
    DeviceRefused        the device understood and said no (10)
    JobFailed            the job was taken and did not end well (11)
      BundleChanged      the device left the bundle that it had taken the job for (11)
    JobInputError        the job's input is wrong (12)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from boards.errors import ExitCode, KitError

if TYPE_CHECKING:
    from firmware_bridge.link.holders import Holder


class BridgeError(KitError):
    """Anything that the bridge raises on purpose."""

    exit_code: ClassVar[ExitCode] = ExitCode.LINK


class LocalProtocolError(BridgeError):
    """Our own side asked for something that the protocol does not allow; the peer never saw it."""

    exit_code: ClassVar[ExitCode] = ExitCode.LINK


class RemoteProtocolError(BridgeError):
    """The peer sent something that the protocol does not allow. Parsers raise this and nothing else."""

    exit_code: ClassVar[ExitCode] = ExitCode.LINK


class UnknownMessage(RemoteProtocolError):  # noqa: N818  names the thing, as its siblings do
    """A message type that this version of the protocol does not know.

    Args:
        code: the type's number on the wire.
    """

    def __init__(self, code: int) -> None:
        super().__init__(
            f"message type {code} is unknown here",
            mend="use the same version of the kit on host and device",
        )
        self.code = code


class PortError(BridgeError):
    """No port, several ports, or one that cannot be opened."""

    exit_code: ClassVar[ExitCode] = ExitCode.PORT


class PortTaken(PortError):  # noqa: N818  names what happened
    """Another program has the port.

    Args:
        holders: the processes that have it, as far as we may see.
        where: the port.
    """

    def __init__(self, holders: Sequence[Holder], *, where: str) -> None:
        by = f": {'; '.join(map(str, holders))}" if holders else ""
        mend = "end the `watch`, deployment, terminal program or ModemManager that uses it"
        look = "" if holders else f" (`fuser -v {where}` shows which)"
        super().__init__(f"the port is taken by another program{by}", where=where, mend=mend + look)
        self.holders = tuple(holders)


class PeerError(PortError):
    """Whoever is at the other end is not who it should be, or does not know this host.

    Args:
        what: what TLS says.
        where: the port.
    """

    def __init__(self, what: str, *, where: str) -> None:
        super().__init__(
            f"the device is not who it should be, or does not know this host: {what}",
            where=where,
            mend="both need certificates of the same authority, see python -m firmware_bridge certificates, "
            "and the supervisor a port with TLS",
        )


class LinkError(BridgeError):
    """The link was open and is lost, or nobody answers on it."""

    exit_code: ClassVar[ExitCode] = ExitCode.LINK


class SessionLost(LinkError):  # noqa: N818  names what happened
    """The session is over, the line is still there: the client opens a new one and goes on."""


class DeviceRefused(BridgeError):  # noqa: N818  names what happened
    """The device understood a request and refused it.

    Args:
        code: why, one of `messages.RefusalCode` (or a number that this version has no name for).
        what: the device's own words.
        where: the device or blob.
        mend: what to do about it.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.REFUSED

    def __init__(self, code: int, what: str, *, where: str = "", mend: str = "") -> None:
        super().__init__(what, where=where, mend=mend)
        self.code = code


class JobFailed(BridgeError):  # noqa: N818  names what happened
    """A job was accepted and did not end well: engine died, out of memory, cancelled.

    Args:
        code: why, one of `messages.FailureCode` (or a number that this version has no name for).
        what: the device's own words.
        where: the job.
        mend: what to do about it.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.JOB_FAILED

    def __init__(self, code: int, what: str, *, where: str = "", mend: str = "") -> None:
        super().__init__(what, where=where, mend=mend)
        self.code = code


class BundleChanged(JobFailed):
    """The device went back to the bundle before, and does not run in one what it took for another: send it again."""


class JobInputError(JobFailed):
    """A job's input is wrong: image size, NaN, start out of range, a parameter missing."""

    exit_code: ClassVar[ExitCode] = ExitCode.JOB_INPUT
