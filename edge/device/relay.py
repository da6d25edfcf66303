"""Carries what the scheduler's thread has to say to the bridge's thread, and on to the host.

Any thread leaves notes; a byte in a pipe wakes the bridge's thread, which calls ``advance``. Of each job the newest
progress waits until there is room for it; a job's end never overtakes its last progress.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edge.device.answers import refusal
from edge.device.notes import Activation, Ended
from firmware_bridge.jobs import Failure, Preview, Progress, Result
from firmware_bridge.wire.messages import FailureCode

if TYPE_CHECKING:
    from edge.device.journal import Outcome
    from firmware_bridge.handler import Outbox

Note = Progress | Preview | Ended | Activation
_READ_WAKE = 4096


class Relay:
    """The notes, and the host that they are for.

    Args:
        outcome: how a job ended, from the journal; None where it is not known any more.
        settled: called in the bridge's thread with each end, before the host is told.
    """

    def __init__(self, outcome: Callable[[str], Outcome | None], settled: Callable[[Ended | Activation], None]) -> None:
        self._outcome = outcome
        self._settled = settled
        self._outbox: Outbox | None = None
        self.session = 0
        self._notes: deque[Note] = deque()
        self._progress: dict[str, Progress] = {}  # the newest of each job, until there is room for it
        self._wake: tuple[int, int] | None = None

    def open(self) -> None:
        """From here on notes wake the bridge's thread."""
        self._wake = os.pipe()
        for fd in self._wake:
            os.set_blocking(fd, False)

    def close(self) -> None:
        """No more notes."""
        wake, self._wake = self._wake, None
        for fd in wake or ():
            os.close(fd)

    def wake_files(self) -> Sequence[int]:
        """Readable when a note was left."""
        return self._wake[:1] if self._wake is not None else ()

    def attach(self, outbox: Outbox) -> None:
        """How to speak to the host."""
        self._outbox = outbox

    def session_opened(self) -> None:
        """A host is here; progress for the one before is void, and answers to its activations."""
        self.session += 1
        self._progress.clear()

    def leave(self, note: Note) -> None:
        """Leave a note; from any thread."""
        self._notes.append(note)
        if self._wake is not None:
            with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well as one byte more
                os.write(self._wake[1], b"!")

    def advance(self) -> None:
        """Pass the notes on."""
        if self._wake is not None:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._wake[0], _READ_WAKE):
                    pass
        self._send_progress()
        while self._notes:
            note = self._notes.popleft()
            if isinstance(note, Progress):
                self._progress[note.job_id] = note
                self._send_progress()
            elif isinstance(note, Preview):
                if self._outbox is not None and self._outbox.connected():
                    self._outbox.preview(note)  # what there is no room for now is old when there is
            elif isinstance(note, Activation):
                self._tell_activation(note)
            elif note.job_id in self._progress:
                self._notes.appendleft(note)  # the last step's progress has to go first, and there is no room yet
                break
            else:
                self._settled(note)
                self._tell_end(note.job_id)

    def _send_progress(self) -> None:
        if self._outbox is None or not self._outbox.connected():
            self._progress.clear()
            return
        for job_id in list(self._progress):
            if not self._outbox.progress(self._progress[job_id]):
                return
            del self._progress[job_id]

    def _tell_end(self, job_id: str) -> None:
        if self._outbox is None or not self._outbox.connected():
            return
        outcome = self._outcome(job_id)
        if outcome is None:
            message = "the outcome is no longer kept, or the disk lost it; submit the job under a new id"
            self._outbox.failure(Failure(job_id, FailureCode.INTERNAL, message))
        elif outcome.failure:
            self._outbox.failure(Failure(job_id, outcome.failure, outcome.message))
        else:
            self._outbox.result(Result(job_id, outcome.meta, outcome.payload))

    def _tell_activation(self, note: Activation) -> None:
        if note.is_end:
            self._settled(note)
        if self._outbox is None or note.session != self.session:
            return
        if not note.is_end:
            self._outbox.activation_progress(note.request, note.stage, note.done, note.of)
        elif note.error is None:
            self._outbox.activated(note.request, note.bundle_id)
        else:
            refused = refusal(note.error)
            self._outbox.refuse(note.request, refused.code, refused.what)
