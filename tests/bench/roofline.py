"""Which bound each layer of a network meets on a board: multiply-accumulates or memory traffic.

A roofline (Williams, Waterman, Patterson: "Roofline", CACM 2009) with two roofs from the board's file: dot products per
second of one core or all, and bytes per second of main memory. Traffic is what one pass must move at least once: the
packed weights, the float input, the int16 lattice (read and written), the int32 accumulator (read and written), the
float output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from boards import Board
from tests.bench.program import Call

MACS_PER_INSTRUCTION = 16
DOT_PRODUCTS_PER_CYCLE = {"cortex-a76": 2.0, "cortex-a78": 2.0, "cortex-a55": 1.0}
"""SDOT of 128 bits a cycle (Arm's software optimization guides)."""
NEON_MACS_PER_CYCLE = {"cortex-a72": 8.0, "cortex-a53": 8.0}
"""SMULL and SMLAL of 8 bytes, one a cycle, without the pairwise additions (Arm's software optimization guides)."""


@dataclass(frozen=True)
class Bound:
    """One layer on one board.

    Attributes:
        label: of the layer.
        macs: of one pass.
        bytes: moved by a step with one pass.
        compute_seconds: at the rate of the core's multiply-accumulate units.
        memory_seconds: at the board's copy rate.
    """

    label: str
    macs: int
    bytes: int
    compute_seconds: float
    memory_seconds: float

    @property
    def limit(self) -> str:
        """Which roof is lower."""
        return "memory" if self.memory_seconds > self.compute_seconds else "compute"

    @property
    def intensity(self) -> float:
        """MACs a byte."""
        return self.macs / self.bytes


def macs_per_second(board: Board, cores: int = 1) -> float:
    """The peak of int8 multiply-accumulates."""
    core = board.cpu.core
    if board.cpu.has("dotprod"):
        per_cycle = DOT_PRODUCTS_PER_CYCLE.get(core, 1.0) * MACS_PER_INSTRUCTION
    else:
        per_cycle = NEON_MACS_PER_CYCLE.get(core, 8.0)
    return per_cycle * board.cpu.clock_hz * cores


def bounds(board: Board, calls: Sequence[Call], cores: int = 1) -> list[Bound]:
    """The modulated layers of a program, in order."""
    found = []
    for call in calls:
        if not call.modulated:
            continue
        outputs, inputs = call.output.elements, call.inputs
        weights = call.named["weight"].bytes
        moved = weights + inputs * (4 + 2 * 2) + outputs * (2 * 4 + 4)
        compute = call.macs / macs_per_second(board, cores)
        found.append(Bound(call.label, call.macs, moved, compute, moved / board.memory.bandwidth_bytes_per_s))
    return found
