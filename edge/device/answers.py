"""From the device's errors to the numbers the wire knows them by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.device import errors
from edge.errors import BundleError, EngineError
from firmware_bridge.errors import DeviceRefused
from firmware_bridge.limits import MAX_TEXT
from firmware_bridge.wire.messages import FailureCode, RefusalCode

if TYPE_CHECKING:
    from boards.errors import KitError

# First match wins: subclasses stand before their bases.
_REFUSALS: tuple[tuple[type[KitError], RefusalCode], ...] = (
    (errors.NoSpace, RefusalCode.NO_SPACE),
    (errors.StorageError, RefusalCode.STORAGE),
    (errors.HashMismatch, RefusalCode.HASH_MISMATCH),
    (errors.SelfTestFailed, RefusalCode.SELF_TEST),
    (errors.Untrusted, RefusalCode.UNTRUSTED),
    (errors.Downgrade, RefusalCode.DOWNGRADE),
    (errors.NoActiveBundle, RefusalCode.NO_ACTIVE_BUNDLE),
    (errors.OtherBundle, RefusalCode.OTHER_BUNDLE),
    (errors.UnknownBundle, RefusalCode.UNKNOWN_BUNDLE),
    (BundleError, RefusalCode.BUNDLE_INVALID),
    (errors.Busy, RefusalCode.BUSY),
    (errors.JobRejected, RefusalCode.BAD_INPUT),
    (EngineError, RefusalCode.SELF_TEST),  # during an activation the engine's death is a failed test
)
_ENGINE_CODES = {
    **dict.fromkeys(errors.EngineRefused.INPUT, FailureCode.BAD_INPUT),
    errors.EngineRefused.OUT_OF_MEMORY: FailureCode.OUT_OF_MEMORY,
    errors.EngineRefused.NOT_FINITE: FailureCode.NOT_FINITE,
}
_STARTED_WITHOUT_MEMORY = 5  # the engine's exit status


def refusal(error: KitError) -> DeviceRefused:
    """How the host is told that a request is refused."""
    if isinstance(error, DeviceRefused):
        return error
    code = next((code for kind, code in _REFUSALS if isinstance(error, kind)), RefusalCode.INTERNAL)
    return DeviceRefused(code, words(error))


def failure_code(error: KitError) -> FailureCode:
    """Why a job ended without a result."""
    if isinstance(error, errors.JobExpired):
        return FailureCode.DEADLINE
    if isinstance(error, errors.JobCancelled):
        return FailureCode.CANCELLED
    if isinstance(error, errors.EngineDied):
        is_memory = error.returncode == _STARTED_WITHOUT_MEMORY
        return FailureCode.OUT_OF_MEMORY if is_memory else FailureCode.ENGINE_DIED
    if isinstance(error, errors.EngineRefused):
        return _ENGINE_CODES.get(error.code, FailureCode.INTERNAL)
    return FailureCode.INTERNAL


def words(error: KitError) -> str:
    """The error's text, as long as a message takes."""
    return str(error)[:MAX_TEXT]
