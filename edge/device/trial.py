"""The trial of a bundle that was just activated: its first good job makes it good, a crash in it sends it back."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from edge.device.standing import Trust

if TYPE_CHECKING:
    from edge.device.standing import StandingFile


class Trial:
    """Keeps the active bundle's ``Trust`` on disk in step with its jobs. Thread-safe.

    Args:
        standing: where it is kept.

    Raises:
        StorageError: from any method: the disk refuses.
    """

    def __init__(self, standing: StandingFile) -> None:
        self._standing = standing
        self._lock = threading.Lock()
        self._jobs: set[str] = set()
        self._has_crashed = False

    def begins(self, job_id: str) -> None:
        """A job starts."""
        with self._lock:
            self._jobs.add(job_id)
            if self._standing.now.trust is Trust.TRIAL:
                self._has_crashed = False
                self._mark(Trust.TRYING)

    def ended(self, job_id: str, *, well: bool, crashed: bool) -> None:
        """A job ended."""
        with self._lock:
            self._jobs.discard(job_id)
            self._has_crashed |= crashed
            if well:
                self._mark(Trust.GOOD)
            elif not self._jobs and not self._has_crashed:
                self._back_on_trial()

    def passed(self) -> None:
        """Somebody says that the bundle works."""
        with self._lock:
            self._mark(Trust.GOOD)

    def interrupted(self) -> None:
        """The jobs under way end for another reason."""
        with self._lock:
            self._jobs.clear()
            if not self._has_crashed:
                self._back_on_trial()

    def _back_on_trial(self) -> None:
        if self._standing.now.trust is Trust.TRYING:
            self._mark(Trust.TRIAL)

    def _mark(self, trust: Trust) -> None:
        if self._standing.now.trust is not None:
            self._standing.save(self._standing.now.marked(trust))
