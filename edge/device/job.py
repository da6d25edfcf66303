"""A job as the engine runs it, what is counted of it, and who is told how it goes."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from edge.device.engine import ImageType
from edge.device.snapshots import Snapshot

if TYPE_CHECKING:
    from boards.errors import KitError
    from edge.device.engine import EngineResult, StepReport

_KEPT_TOTALS = ("nanoseconds", "passes", "residual_passes", "macs", "saturated")


@dataclass(frozen=True)
class Job:
    """What to run: noise ``seed``, first step, the image [C,H,W] to inspect or None to generate, and what else the
    program takes, one tensor after the other.
    """

    job_id: str
    seed: int
    start: int = 0
    image: bytes | None = None
    image_type: ImageType = ImageType.FLOAT32
    conditions: bytes = b""
    priority: int = 0
    deadline: float | None = None  # of the monotonic clock
    preview_every: int = 0  # steps between two looks at its image; 0: none
    snapshot: Snapshot | None = None  # to go on from, if the engine takes it


@dataclass
class Totals:
    """A job's statistics, summed over its steps; ``nanoseconds`` one entry a step; memory in bytes.

    ``resumed_at`` is the number of steps that a snapshot saved after a restart.
    """

    nanoseconds: list[int] = field(default_factory=list)
    passes: int = 0
    residual_passes: int = 0
    macs: int = 0
    saturated: int = 0
    peak_rss: int = 0
    state_bytes: int = 0
    resumed_at: int | None = None
    snapshot_ns: int = 0  # of this process: what the last snapshot took
    since_snapshot_ns: int = 0  # and the steps since then
    preview_due: float = 0.0  # of the scheduler's clock

    def add(self, report: StepReport) -> None:
        """Count one step."""
        self.nanoseconds.append(report.nanoseconds)
        self.passes += report.passes
        self.residual_passes += report.residual_passes
        self.macs += report.macs
        self.saturated += report.saturated
        self.since_snapshot_ns += report.nanoseconds

    def plain(self) -> dict[str, object]:
        """What a snapshot keeps of them."""
        return {name: copy(getattr(self, name)) for name in _KEPT_TOTALS}

    @classmethod
    def resumed(cls, plain: Mapping[str, Any]) -> Totals:
        """From what a snapshot kept."""
        totals = cls(**{name: copy(plain[name]) for name in _KEPT_TOTALS})
        totals.resumed_at = len(totals.nanoseconds)
        return totals


class Listener(Protocol):
    """Is told how jobs go, from the scheduler's thread. Must not block for long and must not raise."""

    def begun(self, job: Job) -> None:
        """The job is about to take its first step in this process."""

    def progressed(self, job: Job, report: StepReport) -> None:
        """One step is done."""

    def seen(self, job: Job, report: StepReport, image: bytes, shape: tuple[int, int, int]) -> None:
        """What the job's image looks like after this step: float32 LE [C,H,W]. Only where the job wants it."""

    def kept(self, job: Job, snapshot: Snapshot) -> None:
        """The job may be continued from here."""

    def finished(self, job: Job, result: EngineResult, totals: Totals) -> None:
        """The job ended well."""

    def failed(self, job: Job, error: KitError) -> None:
        """The job ended otherwise: EngineDied, EngineRefused, JobCancelled, or why no engine could be started."""
