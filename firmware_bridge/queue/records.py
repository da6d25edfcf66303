"""What goes into the queue and what comes out of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from firmware_bridge.jobs import new_job_id


class State(enum.StrEnum):
    """Where a job stands."""

    WAITING = "waiting"
    HELD = "held"
    """A device has it, or had it when it was last seen."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        """Whether nothing more comes of the job."""
        return self not in {State.WAITING, State.HELD}


@dataclass(frozen=True)
class NewJob:
    """A job to be put into the queue.

    Args:
        kind: "generate" or "inspect".
        params: flat map of its parameters (bool, int, float, text).
        payload: its bytes; at most limits.MAX_PAYLOAD.
        label: what the user calls it.
        priority: 0..255; higher ones begin first, among equals the older one.
        deadline: Unix seconds after which nobody wants the result; None: never.
        device: id of the only device that may run it; None: any.
        bundle: id of the bundle that must be active there; None: any.
        job_id: UUIDv7; the same id twice is the same job.
    """

    kind: str
    params: Mapping[str, object] = field(default_factory=dict)
    payload: bytes = b""
    label: str = ""
    priority: int = 0
    deadline: float | None = None
    device: str | None = None
    bundle: str | None = None
    job_id: str = field(default_factory=new_job_id)


@dataclass(frozen=True)
class JobRecord:
    """A job in the queue, without its bytes. ``created``, ``changed``: Unix seconds; ``attempt``: 0 for the first."""

    job_id: str
    label: str
    kind: str
    priority: int
    state: State
    holder: str | None
    attempt: int
    created: float
    changed: float


@dataclass(frozen=True)
class Outcome:
    """How a job ended. ``code``: messages.FailureCode, None for a result; ``message``: the device's words."""

    job_id: str
    label: str
    state: State
    code: int | None
    message: str
    meta: Mapping[str, object]
    payload: bytes


@dataclass(frozen=True)
class DeviceRecord:
    """A device that was seen. ``seen``: Unix seconds of its last sign of life; ``held``: jobs that it has."""

    device_id: str
    board: str
    port: str
    bundle: str | None
    slots: int
    seen: float
    held: int


@dataclass(frozen=True)
class Stuck:
    """Waiting jobs that no device that was ever seen may take: they are for another ``device``, or ``bundle``."""

    device: str | None
    bundle: str | None
    jobs: int

    def __str__(self) -> str:
        jobs = "1 job waits" if self.jobs == 1 else f"{self.jobs} jobs wait"
        wanted = [f"device {self.device}"] if self.device else []
        wanted += [f"bundle {self.bundle[:12]}"] if self.bundle else []
        return f"{jobs} for {' with '.join(wanted)}, which is not here"


@dataclass(frozen=True)
class Limits:
    """How much the queue takes.

    Args:
        jobs: that have not ended.
        payload_bytes: of the jobs that have not ended.
    """

    jobs: int = 10_000
    payload_bytes: int = 1 << 30


def default_path() -> Path:
    """The user's queue: ``$EDGE_QUEUE``, or a file in the user's state folder."""
    import os  # noqa: PLC0415

    import platformdirs  # noqa: PLC0415  the device, which imports this package's neighbours, need not have it

    named = os.environ.get("EDGE_QUEUE")
    return Path(named) if named else platformdirs.user_state_path("modiff-edge") / "queue.db"


def lock_path(queue: Path) -> Path:
    """The file that the process which serves a queue has locked."""
    return queue.with_name(queue.name + ".serving")
