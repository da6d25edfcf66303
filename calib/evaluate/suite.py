"""Which ways an evaluation compares, and under which names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from calib.calibration import Calibration
from calib.errors import CalibrationError
from calib.evaluate.variants import EIGHT_BITS, NARROWEST, WIDEST
from calib.evaluate.ways import Dynamic, Float, Modulated, Planned, Static, Way, solver_steps_of
from calib.ranges import Largest, LeastSquares, Percentile, RangeMethod
from calib.samplers import Sampler, build_sampler
from calib.schedules import Schedule
from calib.weights import CorrectBias, Gptq, MseRange, WeightMethod

INT8_PER_FP32 = 4
"""INT8 MACs that a Cortex-A76 does in the time of one in FP32 (307 against 77 GMAC/s on four cores)."""

ROUNDING = 1e-6
"""Of a cost that is a whole number of steps but for the floats it was summed in."""

FEW_CODES = 4
NARROW_REACH = Percentile(0.9995)
"""How far changes of few codes reach: past the rarest changes a larger step costs more than it saves."""


def reach_of(bits: int) -> RangeMethod:
    """How far changes with codes under 8 bits reach.

    With six bits, an element that is cut and lags costs more than the finer code saves (demo model with residual
    plane, 99.95th percentile: 3 dB gained on the mean of four seeds, 27 lost at the worst of sixteen).
    """
    return NARROW_REACH if bits <= FEW_CODES else Largest()


WEIGHT_METHODS = {
    "MSE range": WeightMethod(MseRange()),
    "bias correction": WeightMethod(bias=CorrectBias()),
    "GPTQ": WeightMethod(rounding=Gptq()),
    "GPTQ + bias correction": WeightMethod(rounding=Gptq(), bias=CorrectBias()),
    "MSE range + GPTQ + bias correction": WeightMethod(MseRange(), Gptq(), CorrectBias()),
}

SOLVERS = ("ddim", "dpmpp2m", "euler", "heun", "flow-euler")
"""Solvers without noise of their own: what a plan's rival may be."""


@dataclass(frozen=True)
class EvaluationConfig:
    """What to evaluate.

    Attributes:
        seeds: how many noise seeds.
        first_seed: the first of them; none may be among the calibrations'.
        widths: code bits to compare, 8 among them.
        weight_methods: compare the ways of making weights too.
        reference_steps: of the float reference that fewer steps are measured against.
        distances: measure feature distances.
        real: folder of real images; the demo model's held-out crops where None, and for other models none.
        real_images: at most so many.
        batch: seeds that run together.
    """

    seeds: int = 16
    first_seed: int = 0
    widths: tuple[int, ...] = (8, 6, 4, 3)
    weight_methods: bool = True
    reference_steps: int = 250
    distances: bool = True
    real: Path | None = None
    real_images: int = 256
    batch: int = 4

    def __post_init__(self) -> None:
        def check(holds: bool, key: str, mend: str) -> None:
            if not holds:
                raise CalibrationError(f"{key} = {getattr(self, key)!r}", where="EvaluationConfig", mend=mend)

        check(self.seeds >= 1, "seeds", "use 1 or more")
        check(self.first_seed >= 0, "first_seed", "use 0 or more")
        narrow = all(NARROWEST <= bits <= WIDEST for bits in self.widths)
        check(narrow and EIGHT_BITS in self.widths, "widths", f"use {NARROWEST}..{WIDEST}, and 8 among them")
        check(self.reference_steps >= 2, "reference_steps", "use 2 or more")
        check(self.real_images >= 2, "real_images", "use 2 or more")
        check(self.batch >= 1, "batch", "use 1 or more")

    @property
    def evaluated_seeds(self) -> range:
        """The noise seeds that are evaluated."""
        return range(self.first_seed, self.first_seed + self.seeds)


@dataclass(frozen=True)
class Entry:
    """A way under the name and in the group that the tables give it."""

    name: str
    group: str
    way: Way


def suite(config: EvaluationConfig, sampler: Sampler, plans: Sequence[tuple[str, Calibration]]) -> list[Entry]:
    """The ways, all but those with fewer steps.

    Args:
        config: what to evaluate.
        sampler: of the ways that share one.
        plans: title and calibration of each planned way.
    """
    entries = [Entry("FP32", "float", Float(sampler.name, solver_steps_of(sampler)))]
    entries += [Entry(name, "unmodulated", way) for bits in config.widths for name, way in _unmodulated(bits)]
    entries += [Entry(name, "modulated", way) for bits in config.widths for name, way in _modulated(bits)]
    if config.weight_methods:
        entries += [Entry(name, "weights", way) for name, way in _weights(config.widths)]
    entries += [Entry(title, "planned", Planned(title, plan.content_hash)) for title, plan in plans]
    return entries


def _unmodulated(bits: int) -> list[tuple[str, Way]]:
    static: list[tuple[str, RangeMethod]] = [("min-max", Largest()), ("MSE", LeastSquares())]
    if bits == EIGHT_BITS:
        static.insert(1, ("percentile 99.99", Percentile()))
    ways: list[tuple[str, Way]] = [(f"static A{bits}, {name}", Static(bits, method)) for name, method in static]
    return [*ways, (f"dynamic A{bits}", Dynamic(bits))]


def _modulated(bits: int) -> list[tuple[str, Way]]:
    changes = None if bits == EIGHT_BITS else reach_of(bits)
    return [
        (f"modulated A{bits}", Modulated(bits, changes=changes)),
        (f"modulated A{bits}, no compensation", Modulated(bits, compensated=False, changes=changes)),
        (f"modulated A{bits} + residual plane", Modulated(bits, residual=True, changes=changes)),
    ]


def _weights(widths: Iterable[int]) -> list[tuple[str, Way]]:
    ways: list[tuple[str, Way]] = [
        (f"modulated A8, {name}", Modulated(weights=method)) for name, method in WEIGHT_METHODS.items()
    ]
    ways += [
        (f"modulated A8 + residual plane, {name}", Modulated(residual=True, weights=WEIGHT_METHODS[name]))
        for name in ("MSE range", "GPTQ")
    ]
    for bits in widths:
        if bits != EIGHT_BITS:
            narrow = Modulated(bits, changes=reach_of(bits), weights=WEIGHT_METHODS["GPTQ"])
            ways.append((f"modulated A{bits}, GPTQ", narrow))
    return ways


def rivals(costs: Iterable[float], schedule: Schedule) -> list[Entry]:
    """Float ways with fewer steps: every solver at each cost and at a quarter of it (INT8 against FP32 time).

    Steps are rounded up: a rival may be dearer than what it is compared with, never cheaper.

    Args:
        costs: in units of one float step of the whole model.
        schedule: of the model; a solver that refuses it is no rival.
    """
    shares = [cost / share for cost in costs for share in (1, INT8_PER_FP32)]
    counts = sorted({max(2, math.ceil(steps - ROUNDING)) for steps in shares}, reverse=True)
    found: dict[tuple[str, int], Entry] = {}
    for name in (name for name in SOLVERS if accepts(name, schedule)):
        for count in counts:
            steps = (count + 1) // 2 if name == "heun" else count
            runs = build_sampler(name, steps, schedule).steps
            found[name, runs] = Entry(f"FP32, {name}, {runs} steps", "fewer steps", Float(name, steps))
    return [found[key] for key in sorted(found, key=lambda key: (-key[1], key[0]))]


def accepts(solver: str, schedule: Schedule) -> bool:
    """Whether a solver can be built for a schedule."""
    try:
        build_sampler(solver, 2, schedule)
    except CalibrationError:
        return False
    return True


def reference_solver(schedule: Schedule) -> str:
    """The solver of the many-step reference: the one of highest order that the schedule allows."""
    return next(name for name in ("dpmpp2m", "heun", "euler", "flow-euler", "ddim") if accepts(name, schedule))
