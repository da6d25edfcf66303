"""What the device asks of an engine: the child process has it (``engine_process``), and so has a simulation's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol


class ImageType(IntEnum):
    """The element type of an image sent with BEGIN."""

    FLOAT32 = 0
    UINT8 = 1


@dataclass(frozen=True)
class EngineInfo:
    """What an engine says about itself and its program; sizes in bytes."""

    isa: str
    steps: int
    channels: int
    height: int
    width: int
    state_bytes_per_slot: int
    activation_bytes: int
    program_bytes: int
    slots: int
    condition_bytes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.channels, self.height, self.width


@dataclass(frozen=True)
class StepReport:
    """One sampler step: which, how many are left, what it took."""

    step: int
    left: int
    nanoseconds: int
    passes: int
    residual_passes: int
    macs: int
    saturated: int


NOVELTY_LIMIT = 1.0


@dataclass(frozen=True)
class EngineResult:
    """A finished job: ``image`` float32 LE [C,H,W]; for inspections ``anomaly`` float32 LE [H,W] and its maximum.

    ``novelty``: how unlike the inspected image is to what calibration saw, above ``NOVELTY_LIMIT`` it is flagged; None
    where there is none, or where the program cannot tell.
    """

    image: bytes
    anomaly: bytes
    score: float | None
    novelty: float | None = None


class Engine(Protocol):
    """A running engine with ``info.slots`` slots, used from one thread.

    Raises:
        EngineDied: from any method but ``close``: it has ended, or does not answer.
        EngineRefused: from any request: it is well but says no.
    """

    @property
    def info(self) -> EngineInfo:
        """What it says about itself."""

    @property
    def pid(self) -> int:
        """The process id."""

    def begin(  # noqa: PLR0917 - a job
        self,
        slot: int,
        seed: int,
        start: int,
        image: bytes | None,
        kind: ImageType = ImageType.FLOAT32,
        conditions: bytes = b"",
    ) -> None:
        """Reset a slot and put a job into it."""

    def step(self, slot: int) -> StepReport:
        """Run one sampler step of the job in a slot."""

    def result(self, slot: int) -> EngineResult:
        """The finished job's output."""

    def look(self, slot: int) -> bytes:
        """The job's image as it stands, float32 LE [C,H,W]."""

    def snapshot(self, slot: int) -> bytes:
        """The whole state of a slot."""

    def restore(self, slot: int, blob: bytes) -> None:
        """Put a snapshot into a slot."""

    def release(self, slot: int) -> None:
        """Free the state of a slot."""

    def memory(self) -> tuple[int, int]:
        """(peak resident set, state in use), in bytes."""

    def close(self) -> None:
        """End it."""
