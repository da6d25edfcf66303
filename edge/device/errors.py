"""Everything the device refuses or fails with, within the families of ``edge.errors``."""

from __future__ import annotations

from edge.errors import BundleError, DeviceError, EngineError, JobInputError


class StorageError(DeviceError):
    """An upload does not continue where it stopped, or the disk refuses."""


class NoSpace(StorageError):  # noqa: N818  names what happened, as its siblings do
    """The storage budget is spent or the disk is full."""


class HashMismatch(DeviceError):  # noqa: N818
    """Stored bytes do not have the SHA-256 they are stored under."""


class SelfTestFailed(DeviceError):  # noqa: N818
    """The engine's answer to the golden input is not the golden output."""


class Untrusted(DeviceError):  # noqa: N818
    """A bundle that nobody whom this device trusts has released for it."""


class Downgrade(DeviceError):  # noqa: N818
    """A release of a version that this device has left behind."""


class NoActiveBundle(DeviceError):  # noqa: N818
    """A job came before any bundle was activated, or after all were found damaged."""


class OtherBundle(DeviceError):  # noqa: N818
    """A job that is for another bundle than the active one."""


class BundleRejected(BundleError):  # noqa: N818
    """A bundle that is incomplete, made for another board, or too large for this one."""


class UnknownBundle(BundleRejected):
    """A bundle whose manifest is not here."""


class EngineDied(EngineError):  # noqa: N818
    """The engine process ended, or was ended because it did not answer.

    Args:
        what: how it ended, signal or exit status in words.
        log: the last lines it wrote to its log.
        returncode: as of ``subprocess``: negative for a signal; None when it never started.
    """

    def __init__(self, what: str, *, log: tuple[str, ...] = (), returncode: int | None = None) -> None:
        tail = "; ".join(log[-3:])
        super().__init__(what, where="engine", mend=f"its last words: {tail}" if tail else "it left no words")
        self.log = log
        self.returncode = returncode


class EngineRefused(EngineError):  # noqa: N818
    """The engine answered a request with an error frame.

    Args:
        code: the engine protocol's number, 1 to 11.
        message: the engine's words.
    """

    OUT_OF_MEMORY = 4
    INPUT = frozenset({5, 6, 7})
    NOT_FINITE = 11

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message, where=f"engine, error {code}", mend=_MENDS.get(code, ""))
        self.code = code


class JobRejected(JobInputError):  # noqa: N818
    """A job that names an unknown kind, lacks a parameter, or reuses the id of another job."""


class Busy(DeviceError):  # noqa: N818
    """More jobs wait than the device takes, or another activation is under way."""


class JobCancelled(EngineError):  # noqa: N818
    """The host cancelled the job."""


class JobExpired(EngineError):  # noqa: N818
    """The job's deadline passed before it ended."""


_MENDS = {
    4: "use fewer slots, a smaller model, or a board with more memory",
    5: "send an image of the bundle's shape",
    6: "look for NaN or infinity where the image is made",
    7: "start from 0 to steps-1",
    9: "restore the snapshot with the bundle that took it",
    12: "send the conditions that the bundle's manifest lists",
}
