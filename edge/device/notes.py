"""What the scheduler's thread leaves for the bridge's: that a job has ended, how far an activation is."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge.device.errors import StorageError

if TYPE_CHECKING:
    from boards.errors import KitError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ended:
    """A job's outcome is in the journal."""

    job_id: str


@dataclass(frozen=True)
class Activation:
    """How far an activation is, or how it ended (``error`` None: well)."""

    request: int
    session: int
    bundle_id: str
    stage: str = ""
    done: int = 0
    of: int = 0
    is_end: bool = False
    error: KitError | None = None

    def at(self, stage: str, done: int, of: int) -> Activation:
        """The same activation, that far."""
        return replace(self, stage=stage, done=done, of=of)


def at_time(now: float, seconds: float | None) -> float | None:
    """A time that many seconds from now; None where there is none."""
    return None if seconds is None else now + seconds


class logged:  # noqa: N801  reads as the statement it is
    """A disk that refuses what is only helpful is logged; the device goes on."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if isinstance(error, OSError | StorageError):
            log.error("%s: %s", self._what, error)
            return True
        return False
