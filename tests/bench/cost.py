"""The boards' cost model: fitted to counted instructions of layers of many shapes, checked on layers it has not seen.

    instructions of a layer in a step =
        passes * (per_mac * MACs + (per_input [+ per_prologue]) * inputs) + per_output * outputs + per_call

(``boards.model.Cost``). Every operator call of a step is counted by itself, at the anchor (two passes) and at a
modulated step (one), so the two parts can be told apart. The fit minimizes relative errors: a small layer counts as
much as a large one. Layers with fewer than 16 input or output channels (a network's first and last) are left out: the
kernels pad them to tiles of 4 and 16 channels, so their MACs say little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from boards import Cost
from tests.bench.instructions import BenchError, Recording
from tests.bench.ours import Prepared, count_steps
from tests.bench.program import Call, read_calls
from tests.bench.shares import per_call

GRID = ("grid-16px-32", "grid-32px-64", "grid-24px-96", "grid-64px-32", "grid-16px-160")
"""Models whose layers are fitted."""
HELD_OUT = ("cifar10", "demo")
"""Models whose layers are predicted."""
TOLERANCE = 0.10
LEAST_WITHIN = 0.9
"""Share of the layers that must be predicted within the tolerance."""
MIN_CHANNELS = 16


@dataclass(frozen=True)
class Sample:
    """One layer in one step.

    Attributes:
        layer: what it is, for tables.
        macs, inputs, outputs, passes, prologue: as ``Cost.layer`` takes them.
        instructions: counted.
    """

    layer: str
    macs: int
    inputs: int
    outputs: int
    passes: int
    prologue: bool
    instructions: int

    def predicted(self, cost: Cost) -> float:
        """Instructions by ``cost``."""
        return cost.layer(self.macs, self.inputs, self.outputs, self.passes, prologue=self.prologue)

    def error(self, cost: Cost) -> float:
        """Predicted over counted, less one."""
        return self.predicted(cost) / self.instructions - 1


def fit(samples: Sequence[Sample]) -> Cost:
    """The non-negative coefficients with the least squared relative errors over ``samples``."""
    columns = [
        [s.passes * s.macs, s.passes * s.inputs, s.passes * s.inputs * s.prologue, s.outputs, 1] for s in samples
    ]
    counted = np.array([s.instructions for s in samples], dtype=np.float64)
    matrix = np.array(columns, dtype=np.float64) / counted[:, None]
    scale = np.maximum(matrix.max(axis=0), np.finfo(np.float64).tiny)
    solution = _least_squares(matrix / scale)
    return Cost(*(float(value) for value in solution / scale))


def _least_squares(
    matrix: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Non-negative x with matrix @ x near 1: columns whose coefficient would be negative are left out, worst first."""
    kept = list(range(matrix.shape[1]))
    while True:
        found = np.linalg.lstsq(matrix[:, kept], np.ones(len(matrix)), rcond=None)[0]
        if (found >= 0).all():
            solution = np.zeros(matrix.shape[1])
            solution[kept] = found
            return solution
        del kept[int(found.argmin())]


def measure(prepared: Prepared, *, cpu: str, isa: str) -> list[Sample]:
    """Every modulated layer of a model, at the anchor and at the step after it."""
    recording, _ = count_steps(prepared, 2, cpu=cpu, isa=isa, marked=True)
    calls = read_calls(prepared.program, "step")
    return samples_of(prepared.model, recording, calls)


def samples_of(model: str, recording: Recording, calls: Sequence[Call]) -> list[Sample]:
    """The samples of a recording of two steps."""
    samples = []
    for step, passes in ((0, 2), (1, 1)):
        for call, counts in per_call(recording, calls, step):
            if call.modulated and min(call.channels, call.output.sizes[-1]) >= MIN_CHANNELS:
                name = f"{model} {call.label}, {passes} passes"
                shape = (call.macs, call.inputs, call.output.elements)
                samples.append(Sample(name, *shape, passes, call.prologue, counts.total))
    return samples


@dataclass(frozen=True)
class Check:
    """How well a cost predicts: relative errors over samples.

    Attributes:
        layers: how many samples.
        median: of the absolute error.
        worst: the largest one.
        within: share of the samples within the tolerance.
        total: error of the sum of all layers.
    """

    layers: int
    median: float
    worst: float
    within: float
    total: float


def check(cost: Cost, samples: Sequence[Sample]) -> Check:
    """Compare ``cost`` with what was counted."""
    errors = np.abs([sample.error(cost) for sample in samples])
    total = sum(sample.predicted(cost) for sample in samples) / sum(s.instructions for s in samples) - 1
    within = float((errors <= TOLERANCE).mean())
    return Check(len(samples), float(np.median(errors)), float(errors.max()), within, float(total))


def require(found: Check, board: str) -> None:
    """Refuse a cost model whose predictions a planner cannot go by.

    Raises:
        BenchError: fewer than 9 of 10 layers, or not their sum, are predicted within the tolerance.
    """
    if found.within < LEAST_WITHIN or abs(found.total) > TOLERANCE:
        raise BenchError(
            f"{found.within:.0%} of {found.layers} layers are predicted within {TOLERANCE:.0%}, "
            f"their sum is off by {found.total:+.1%}",
            where=f"cost of board {board}",
            mend=f"python -m tests.bench fit --board {board}, and put what it prints into the board's file",
        )
