"""An engine without a process: as the supervisor sees it, no more; its images are hashes.

Its program is JSON, then padding: ``steps``, ``shape`` [C,H,W], ``holds`` (states that its memory takes), ``is_fatal``
(it takes the device down in every job but the self-test).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from math import prod
from typing import Any

from edge.device.engine import EngineInfo, EngineResult, ImageType, StepReport
from edge.device.errors import EngineDied, EngineRefused
from firmware_bridge.testing.disk import PowerCut

STEP_SECONDS = 0.05
STATE_BYTES = 1000
GOLDEN_SEED = 2**40
"""Of every self-test; no job has it."""
_WRONG_STATE = 3
_DAMAGED_SNAPSHOT = 9


def program(*, padding: bytes, **fields: object) -> bytes:
    """A program's file."""
    return json.dumps(fields).encode() + b"\n" + padding


@dataclass
class _Slot:
    digest: bytes
    step: int
    has_map: bool
    seed: int


class ModelEngine:
    """An ``edge.device.engine.Engine``.

    Args:
        file: its program.
        slots: jobs that may hold state at once, as the bundle says.
    """

    pid = 1

    def __init__(self, file: bytes, slots: int) -> None:
        head, _, _ = file.partition(b"\n")
        self._table: dict[str, Any] = json.loads(head)
        self._program_id = hashlib.sha256(file).digest()
        self._shape = self._table["shape"]
        steps, (channels, height, width) = self._table["steps"], self._shape
        sizes = (STATE_BYTES, 1, len(file))
        self.info = EngineInfo("model", steps, channels, height, width, *sizes, slots, 0)
        self._slots: dict[int, _Slot] = {}
        self._is_dead = False

    def kill(self) -> None:
        """The process dies."""
        self._is_dead = True

    def begin(  # noqa: PLR0917 - a job
        self,
        slot: int,
        seed: int,
        start: int,
        image: bytes | None,
        kind: ImageType = ImageType.FLOAT32,
        conditions: bytes = b"",
    ) -> None:
        """Put a job into a slot."""
        self._check()
        if len(self._slots.keys() | {slot}) > self._table["holds"]:
            raise EngineRefused(EngineRefused.OUT_OF_MEMORY, "the states take more than there is")
        head = f"{seed} {start} {kind} ".encode()
        digest = hashlib.sha256(self._program_id + head + (image or b"none") + conditions).digest()
        self._slots[slot] = _Slot(digest, start, image is not None, seed)

    def step(self, slot: int) -> StepReport:
        """One step: a hash of the state before."""
        job = self._job(slot)
        if self._table["is_fatal"] and job.seed != GOLDEN_SEED:
            raise PowerCut
        job.digest = hashlib.sha256(job.digest).digest()
        job.step += 1
        return StepReport(job.step - 1, self.info.steps - job.step, round(STEP_SECONDS * 1e9), 10, 1, 1000, 0)

    def result(self, slot: int) -> EngineResult:
        """The job's image, and its map if there was an image to inspect."""
        job = self._job(slot)
        if job.step != self.info.steps:
            raise EngineRefused(_WRONG_STATE, "the job has not ended")
        pixels = prod(self._shape[1:]) if job.has_map else 0
        data = hashlib.shake_128(job.digest).digest(4 * (prod(self._shape) + pixels))
        cut = 4 * prod(self._shape)
        return EngineResult(data[:cut], data[cut:], 0.5 if job.has_map else None)

    def look(self, slot: int) -> bytes:
        """The job's image as it stands."""
        return hashlib.shake_128(self._job(slot).digest).digest(4 * prod(self._shape))

    def snapshot(self, slot: int) -> bytes:
        """The slot's state, for an engine of the same program."""
        job = self._job(slot)
        return self._program_id + job.digest + bytes([job.step, job.has_map]) + job.seed.to_bytes(8)

    def restore(self, slot: int, blob: bytes) -> None:
        """Put a state into a slot."""
        self._check()
        if blob[:32] != self._program_id:
            raise EngineRefused(_DAMAGED_SNAPSHOT, "a snapshot of another program")
        if len(self._slots.keys() | {slot}) > self._table["holds"]:
            raise EngineRefused(EngineRefused.OUT_OF_MEMORY, "the states take more than there is")
        self._slots[slot] = _Slot(blob[32:64], blob[64], bool(blob[65]), int.from_bytes(blob[66:]))

    def release(self, slot: int) -> None:
        """Free a slot."""
        self._check()
        self._slots.pop(slot, None)

    def memory(self) -> tuple[int, int]:
        """(peak, state), in bytes."""
        self._check()
        return STATE_BYTES * self.info.slots, STATE_BYTES * len(self._slots)

    def close(self) -> None:
        """End it."""
        self._is_dead = True

    def _check(self) -> None:
        if self._is_dead:
            raise EngineDied("it was ended by SIGKILL", returncode=-9)

    def _job(self, slot: int) -> _Slot:
        self._check()
        if slot not in self._slots:
            raise EngineRefused(_WRONG_STATE, "the slot is empty")
        return self._slots[slot]
