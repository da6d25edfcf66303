"""The engine built for this machine: it foretells what a device's engine computes.

A program that ``LoweredProgram.exact`` vouches for gives the same bits here and there, so a device whose result differs
by one bit computes wrongly. Other programs run here as well; their bits prove nothing.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.device.engine import ImageType
from edge.device.engine_process import EngineCommand, EngineProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from edge.device.engine import EngineResult
    from edge.toolchain import EngineBuild


@dataclass(frozen=True)
class HostProgram:
    """A program to run here.

    Attributes:
        path: the ``.pte``.
        sha256: of the file, hex.
        state_bytes: of one job.
    """

    path: Path
    sha256: str
    state_bytes: int


@contextmanager
def host_engine(build: EngineBuild, program: HostProgram) -> Iterator[EngineProcess]:
    """An engine of this machine with one slot, for the length of a ``with`` block; as many threads as there are cores.

    Raises:
        EngineDied: it does not start.
    """
    threads = len(os.sched_getaffinity(0))
    budget = max(1, program.state_bytes)
    command = EngineCommand(build.engine, program.path, program.sha256, 1, budget, threads=threads)
    with EngineProcess(command) as engine:
        yield engine


def run_job(  # noqa: PLR0917 - a job
    engine: EngineProcess,
    seed: int,
    start: int = 0,
    image: NDArray[np.uint8] | None = None,
    conditions: bytes = b"",
    on_step: Callable[[], None] = lambda: None,
) -> EngineResult:
    """One job from begin to result, in slot 0.

    Args:
        engine: with slot 0 free.
        seed: of its noise.
        start: its first step.
        image: uint8 [C, H, W] to inspect, or None to generate.
        conditions: of the job, one after the other.
        on_step: called after each step.
    """
    pixels = None if image is None else image.tobytes()
    engine.begin(0, seed, start, pixels, ImageType.UINT8, conditions)
    while engine.step(0).left:
        on_step()
    on_step()
    result = engine.result(0)
    engine.release(0)
    return result
