"""What the device side of the bridge asks of its owner: the interfaces that edge/device implements.

`DeviceEndpoint` (device.py) parses what the host sends and calls a `DeviceHandler`; the handler answers through the
`Outbox` it was attached to. All calls happen in the one thread that runs `serve`; none may block longer than about a
second (the host asks after two seconds of silence, and gives up after twenty): long work runs in a child process whose
pipe is named in `wake_files` and moves on in `advance`. Digests, bundle ids: SHA-256 as 64 lower-case hex digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import Failure, JobRequest, Preview, Progress, Result


class BlobStore(Protocol):
    """Where blobs lie: staged while they grow, with the list of their chunks beside them, then complete.

    Methods raise errors.DeviceRefused with the reason (RefusalCode.NO_SPACE, STORAGE); an OSError that escapes is
    answered as STORAGE. The bytes of staged blobs may have holes, and need not be durable before `commit`.
    """

    def has(self, digest: str) -> bool:
        """Whether the blob is there, complete."""

    def reserve(self, digest: str, size: int) -> None:
        """Make sure that a blob and its list fit, `size` bytes; if not, DeviceRefused(NO_SPACE)."""

    def read_index(self, digest: str) -> bytes:
        """The staged bytes of the blob's list; empty if there are none."""

    def append_index(self, digest: str, offset: int, data: bytes) -> None:
        """Add bytes to the staged list; `offset` is its size so far. At 0, a new list begins."""

    def read(self, digest: str, offset: int, size: int) -> bytes:
        """Bytes of the staged blob; fewer, or none, where they are not there."""

    def write(self, digest: str, offset: int, data: bytes) -> None:
        """Put bytes of the staged blob in their place."""

    def commit(self, digest: str) -> None:
        """The staged blob is whole and its hash right: make it durable, then complete, in one atomic move."""

    def discard(self, digest: str) -> None:
        """Throw the staged blob and its list away."""

    def blobs(self) -> Sequence[str]:
        """The digests of the complete blobs."""

    def blob_index(self, digest: str) -> bytes:
        """The list of a complete blob's chunks; empty where it is not known."""

    def read_blob(self, digest: str, offset: int, size: int) -> bytes:
        """Bytes of a complete blob; none where it is gone."""


class Outbox(Protocol):
    """How a handler speaks to the host. Never blocks, to be called from the serving thread only.

    Without a session, everything said is dropped.
    """

    def room(self) -> int:
        """Messages that fit before the link catches up. At 0, run no further step: progress would only be dropped."""

    def connected(self) -> bool:
        """Whether a host is there."""

    def activation_progress(self, request: int, stage: str, done: int, of: int) -> None:
        """Where an activation stands, e.g. ("self-test", 2, 3); dropped when there is no room."""

    def activated(self, request: int, bundle_id: str) -> None:
        """The activation begun under `request` is done: the bundle passed, and is active, durably."""

    def refuse(self, request: int, code: int, message: str) -> None:
        """The activation begun under `request` failed (RefusalCode.SELF_TEST, BUNDLE_INVALID, ...)."""

    def progress(self, progress: Progress) -> bool:
        """A step ran. False: no room, dropped."""

    def preview(self, preview: Preview) -> bool:
        """What a job's image looks like. False: the link is busy with what matters more, dropped."""

    def result(self, result: Result) -> None:
        """The job ended well. Keep the result until `DeviceHandler.forget`."""

    def failure(self, failure: Failure) -> None:
        """The job ended without a result. Keep the failure until `DeviceHandler.forget`."""

    def log(self, text: str) -> None:
        """A line for the user's eyes; dropped when there is no room."""


class DeviceHandler(Protocol):
    """The device behind the endpoint: storage, activation, jobs."""

    @property
    def store(self) -> BlobStore:
        """Where blobs lie; the same object always."""

    def attach(self, outbox: Outbox) -> None:
        """Called once, before anything else: how to speak to the host."""

    def describe(self) -> DeviceInfo:
        """Who this device is and what it can hold, now."""

    def session_opened(self) -> None:
        """A host has connected (or again). Nothing of an earlier session's answers will still be sent."""

    def session_closed(self) -> None:
        """The host is gone. Jobs may go on: a host that comes back submits the same ids again."""

    def activate(self, request: int, bundle_id: str, release: bytes) -> None:
        """Begin to verify, self-test and activate a bundle whose blobs are all here, if its release allows it.

        Returns at once; ends in exactly one `outbox.activated` or `outbox.refuse` with this request, unless the
        session closes before (the work may go on; the host will ask again).

        Raises:
            DeviceRefused: it does not even begin (UNKNOWN_BUNDLE: its manifest or a blob is missing; BUSY; UNTRUSTED,
                DOWNGRADE: the release).
        """

    def confirm(self, bundle_id: str) -> None:
        """The host has seen that the active bundle works. DeviceRefused(UNKNOWN_BUNDLE): another one is active."""

    def submit(self, job: JobRequest) -> None:
        """Take a job. Idempotent by job_id: one that it has is not started again; its end is said again if it has one.

        Returns at once; ends in exactly one `outbox.result` or `outbox.failure`,
        which may be said before this returns.

        Raises:
            JobInputError: parameters or payload are wrong (also: DeviceRefused with RefusalCode.BAD_INPUT).
            DeviceRefused: BUSY (queue full), NO_ACTIVE_BUNDLE, OTHER_BUNDLE, UNSUPPORTED (kind).
        """

    def cancel(self, job_id: str) -> None:
        """Stop a job; it ends in `outbox.failure` with FailureCode.CANCELLED. Unknown or ended: nothing happens."""

    def forget(self, job_id: str) -> None:
        """The host has the job's end, whole: nothing of it need be kept."""

    def wake_files(self) -> Sequence[int]:
        """File descriptors (the engine's pipe, ...) that call for `advance` when they are readable.

        Asked before each wait: name only those that `advance` would read now. One left out (no room towards the host)
        comes back by itself, because `advance` is called when there is room.
        """

    def advance(self, now: float) -> float | None:
        """Go on with what can go on without waiting.

        Called when a wake file is readable, when the time it asked for has come, and whenever something arrived from
        the host or room opened towards it; so it is called often, and must be cheap when there is nothing to do.

        Args:
            now: seconds of the monotonic clock.

        Returns:
            The time (same clock) at which to be called again at the latest; None: only when something happens.
        """
