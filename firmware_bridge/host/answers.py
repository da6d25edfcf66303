"""What replies mean for the caller: the one expected, or an error that says what to do."""

from __future__ import annotations

from typing import Final, TypeVar

from firmware_bridge.errors import (
    BridgeError,
    BundleChanged,
    DeviceRefused,
    JobFailed,
    JobInputError,
    RemoteProtocolError,
)
from firmware_bridge.jobs import Failure
from firmware_bridge.wire import messages
from firmware_bridge.wire.messages import FailureCode, RefusalCode

M = TypeVar("M", bound=messages.Reply)

_MENDS: Final[dict[int, str]] = {
    RefusalCode.UNSUPPORTED: "install the same version of the kit on both",
    RefusalCode.BUSY: "wait for its jobs to end, then try again",
    RefusalCode.STORAGE: "check the device's disk",
    RefusalCode.NO_SPACE: "remove old bundles from the device, or use a smaller model",
    RefusalCode.HASH_MISMATCH: "send it again; if it happens again, check the file and the device's disk",
    RefusalCode.UNKNOWN_BUNDLE: "upload the bundle's files first",
    RefusalCode.BUNDLE_INVALID: "build the bundle anew for this board",
    RefusalCode.SELF_TEST: "build the bundle anew for this board; the former bundle stays active",
    RefusalCode.NO_ACTIVE_BUNDLE: "deploy a bundle first",
    RefusalCode.OTHER_BUNDLE: "deploy the bundle that the job is for, or send it for any bundle",
    RefusalCode.UNTRUSTED: "sign with a key that the device trusts: python -m firmware_bridge keys trust",
    RefusalCode.UNAUTHENTICATED: "write tls:// before the port; certificates: python -m firmware_bridge certificates",
    RefusalCode.DOWNGRADE: "release a higher version, or sign a permission to go back",
}


def expect(reply: messages.Reply, kind: type[M]) -> M:
    """The reply, which must be of this kind. RemoteProtocolError: it is not."""
    if not isinstance(reply, kind):
        raise RemoteProtocolError(f"the device answers {type(reply).__name__} where {kind.__name__} belongs")
    return reply


def refusal_error(refused: messages.Refused, where: str) -> BridgeError:
    """The error that a refusal is for the caller."""
    if refused.reason == RefusalCode.BAD_INPUT:
        return JobInputError(FailureCode.BAD_INPUT, refused.message, where=where)
    mend = _MENDS.get(refused.reason, "")
    return DeviceRefused(refused.reason, f"the device refuses: {refused.message}", where=where, mend=mend)


def job_error(failure: Failure) -> JobFailed:
    """The error that a job's failure is for a caller who waited for its result."""
    where = f"job {failure.job_id}"
    match failure.code:
        case FailureCode.BAD_INPUT:
            return JobInputError(failure.code, failure.message, where=where)
        case FailureCode.BUNDLE_CHANGED:
            mend = "send it again under a new id, or deploy the other bundle once more first"
            return BundleChanged(failure.code, failure.message, where=where, mend=mend)
        case _:
            return JobFailed(failure.code, failure.message, where=where)
