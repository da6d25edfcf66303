"""The host end of the bridge: `Client`, a blocking API. One thread of its own keeps the link alive.

Skeleton: signatures are final, bodies follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import JobEvent, JobRequest, Progress, Result
from firmware_bridge.link.base import Link

UploadProgress = Callable[[int, int], None]
"""(bytes of the blob on the device or on their way, bytes of the blob)"""
StageProgress = Callable[[str, int, int], None]
"""(stage, done, of)"""


@dataclass(frozen=True)
class UploadReport:
    """What an upload took: bytes sent, and the offset at which it began (the whole size: the device had it)."""

    sent: int
    resumed_at: int


class Client:
    """A session with one device. Every wait has a timeout; after a lost session it reconnects and goes on.

    Args:
        link: an open link; the client closes it.
        connect_timeout: seconds for the device to answer the opening and the hello.
    """

    def __init__(self, link: Link, *, connect_timeout: float = 20.0) -> None:
        raise NotImplementedError

    @classmethod
    def open(cls, port: str = "auto", *, baud: int = 921_600, connect_timeout: float = 20.0) -> Client:
        """Open `auto`, a path or socket://HOST:PORT, and connect. PortError: none, several, taken. LinkError: silent."""
        raise NotImplementedError

    @property
    def info(self) -> DeviceInfo:
        """What the device said in the last hello."""
        raise NotImplementedError

    def refresh(self) -> DeviceInfo:
        """Ask the device again (free storage, active bundle)."""
        raise NotImplementedError

    def has(self, digests: Iterable[str]) -> set[str]:
        """Those of the digests that the device holds, complete."""
        raise NotImplementedError

    def upload(self, digest: str, source: bytes | Path, on_progress: UploadProgress | None = None) -> UploadReport:
        """Bring a blob to the device, from the offset it already has. DeviceRefused: no space, wrong hash, storage."""
        raise NotImplementedError

    def activate(self, bundle_id: str, on_progress: StageProgress | None = None) -> None:
        """Verify, self-test and activate a bundle whose blobs are on the device. DeviceRefused: it did not pass."""
        raise NotImplementedError

    def submit(self, job: JobRequest) -> None:
        """Hand a job over; its events come from `events`. JobInputError, DeviceRefused (busy, no active bundle)."""
        raise NotImplementedError

    def events(self, *, timeout: float = 600.0) -> Iterator[JobEvent]:
        """Progress, Result and Failure of all submitted jobs as they come; ends when every job has ended.

        Args:
            timeout: seconds between two events at most (LinkError).
        """
        raise NotImplementedError

    def run(
        self, job: JobRequest, on_progress: Callable[[Progress], None] | None = None, *, timeout: float = 600.0
    ) -> Result:
        """Submit one job and wait for its result. JobFailed, JobInputError: it had none."""
        raise NotImplementedError

    def cancel(self, job_id: str) -> None:
        """Stop a job; its Failure(CANCELLED) comes from `events`. Unknown or ended: nothing happens."""
        raise NotImplementedError

    def console(self) -> str:
        """Text that came on the line outside frames, and the device's log, since last asked."""
        raise NotImplementedError

    def close(self) -> None:
        """Say good-bye, stop the thread, close the link. Closing twice is fine."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
        self.close()
