"""Why a device says no, and why a job ends without a result: numbers that are never used for another thing."""

from __future__ import annotations

import enum


class RefusalCode(enum.IntEnum):
    """Why a device refuses a request (`Refused.code`)."""

    INTERNAL = 1
    UNSUPPORTED = 2
    BUSY = 3
    STORAGE = 4
    NO_SPACE = 5
    HASH_MISMATCH = 6
    UNKNOWN_BUNDLE = 7
    BUNDLE_INVALID = 8
    SELF_TEST = 9
    NO_ACTIVE_BUNDLE = 10
    BAD_INPUT = 11
    OFFSET = 12
    UNTRUSTED = 13
    DOWNGRADE = 14
    OTHER_BUNDLE = 15
    UNAUTHENTICATED = 16


class FailureCode(enum.IntEnum):
    """Why an accepted job did not end in a result (`JobFailure.code`)."""

    INTERNAL = 1
    ENGINE_DIED = 2
    OUT_OF_MEMORY = 3
    CANCELLED = 4
    BAD_INPUT = 5
    NOT_FINITE = 6
    BUNDLE_CHANGED = 7
    LOST = 8
    DEADLINE = 9
