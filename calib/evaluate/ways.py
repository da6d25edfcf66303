"""The ways of making an image that an evaluation compares: one frozen type each, made runnable by type."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from calib.baselines import dynamic_quantized, static_quantized
from calib.calibration import Calibration, assemble
from calib.evaluate.cost import Cost, float_cost, plan_cost
from calib.evaluate.variants import EIGHT_BITS, forget_errors, narrow_codes, narrow_plan
from calib.lattice import StepCounts
from calib.modulated import ModulatedModel, modulate
from calib.plan import LayerPlan, Plan
from calib.ranges import Largest, RangeMethod, input_range
from calib.samplers import Sampler, build_sampler
from calib.weights import WeightMethod

if TYPE_CHECKING:
    import torch

    from calib.adapters import PretrainedModel
    from calib.evaluate.evidence import Evidence


@dataclass(frozen=True)
class Float:
    """The float model.

    Attributes:
        sampler: name of the solver.
        steps: of it.
    """

    sampler: str
    steps: int


@dataclass(frozen=True)
class Static:
    """Ordinary static quantization: INT8 weights, one fixed range a layer input.

    Attributes:
        bits: of the inputs' codes.
        range: how far they reach.
    """

    bits: int = EIGHT_BITS
    range: RangeMethod = field(default_factory=Largest)


@dataclass(frozen=True)
class Dynamic:
    """Ordinary dynamic quantization: INT8 weights, each layer input over its own range.

    Attributes:
        bits: of the inputs' codes.
    """

    bits: int = EIGHT_BITS


@dataclass(frozen=True)
class Modulated:
    """Modulated INT8 with the uniform plan.

    Attributes:
        bits: of the changes' codes; only 8 runs on a device.
        residual: with the residual-weight plane, as the calibration plans it.
        compensated: the state takes up each pass's quantization error.
        changes: how far a pass reaches; None = as the calibration plans it (8 bits only).
        weights: how they are made; None = as calibrated.
    """

    bits: int = EIGHT_BITS
    residual: bool = False
    compensated: bool = True
    changes: RangeMethod | None = None
    weights: WeightMethod | None = None


@dataclass(frozen=True)
class Planned:
    """A stored calibration with a plan of its own.

    Attributes:
        title: for the tables.
        content_hash: of the calibration.
    """

    title: str
    content_hash: str


Way = Float | Static | Dynamic | Modulated | Planned


@dataclass(frozen=True)
class Runnable:
    """A way, ready to sample from.

    Attributes:
        denoiser: float, quantized or modulated.
        sampler: to run it with.
        cost: of one job.
    """

    denoiser: torch.nn.Module
    sampler: Sampler
    cost: Cost

    def counts(self) -> StepCounts:
        """Counts of the job that ran last; zeros where nothing counts."""
        return self.denoiser.counts() if isinstance(self.denoiser, ModulatedModel) else StepCounts()


@dataclass(frozen=True)
class Bench:
    """What ways are made from.

    Attributes:
        model: the float model.
        sampler: of every way but ``Float`` and ``Planned``.
        calibration: with the uniform plan.
        evidence: what was observed beside it, on calibration seeds.
        plans: calibrations of the planned ways, by content hash.
        by_method: calibrations with other weights, made when they are first asked for.
    """

    model: PretrainedModel
    sampler: Sampler
    calibration: Calibration
    evidence: Evidence
    plans: Mapping[str, Calibration] = field(default_factory=dict)
    by_method: dict[WeightMethod, Calibration] = field(default_factory=dict)

    def make(self, way: Way) -> Runnable:
        """Quantize, plan and build what the way says."""
        denoiser, steps = self.model.denoiser, self.sampler.steps
        match way:
            case Float(name, count):
                sampler = build_sampler(name, count, self.model.schedule)
                return Runnable(denoiser, sampler, float_cost(sampler.steps))
            case Static(bits, method):
                edges = {name: input_range(seen, method, 2**bits - 1) for name, seen in self.evidence.values.items()}
                quantized = static_quantized(denoiser, edges, bits, self._exact_layers())
                return Runnable(quantized, self.sampler, float_cost(steps))
            case Dynamic(bits):
                quantized = dynamic_quantized(denoiser, self.calibration.layers.keys(), bits, self._exact_layers())
                return Runnable(quantized, self.sampler, float_cost(steps))
            case Modulated():
                return self._modulated(way)
            case Planned(_, content_hash):
                calibration = self.plans[content_hash]
                sampler = build_sampler(calibration.sampler, solver_steps(calibration), self.model.schedule)
                cost = plan_cost(calibration.plan, self.evidence.macs)
                return Runnable(modulate(denoiser, calibration), sampler, cost)
            case _:
                assert_never(way)

    def _modulated(self, way: Modulated) -> Runnable:
        calibration = self.calibration
        if way.weights is not None:
            calibration = self._with_weights(way.weights)
        if not way.residual:
            calibration = without_residual(calibration)
        if way.changes is not None:
            calibration = narrow_plan(calibration, self.evidence.changes, way.changes, way.bits)
        model = modulate(self.model.denoiser, calibration)
        if way.bits != EIGHT_BITS:
            narrow_codes(model, way.bits)
        if not way.compensated:
            forget_errors(model)
        return Runnable(model, self.sampler, plan_cost(calibration.plan, self.evidence.macs))

    def _with_weights(self, method: WeightMethod) -> Calibration:
        if method not in self.by_method:
            config, seen = dataclasses.replace(self.calibration.config, weights=method), self.evidence
            self.by_method[method] = assemble(
                self.model,
                self.sampler,
                config,
                seen.observations,
                float_layers=seen.float_layers,
                moments=seen.moments,
            )
        return self.by_method[method]

    def _exact_layers(self) -> Sequence[str]:
        """The smallest layers, which the uniform plan gives two passes at every step.

        Ordinary quantization keeps 8 bits there at any width, so that it is not the first and the last layer that
        the comparison is about.
        """
        layers = self.calibration.plan.layers.items()
        return [name for name, layer in layers if all(len(row.exponents) > 1 for row in layer.rows)]


def solver_steps(calibration: Calibration) -> int:
    """The number that ``build_sampler`` wants for a calibration's plan: Heun evaluates its T steps 2T - 1 times."""
    steps = calibration.plan.steps
    return (steps + 1) // 2 if calibration.sampler == "heun" else steps


def solver_steps_of(sampler: Sampler) -> int:
    """The number that ``build_sampler`` made the sampler from."""
    return (sampler.steps + 1) // 2 if sampler.name == "heun" else sampler.steps


def without_residual(calibration: Calibration) -> Calibration:
    """The same calibration with no residual pass anywhere."""

    def strip(layer: LayerPlan) -> LayerPlan:
        rows = tuple(dataclasses.replace(row, residual_exponents=()) for row in layer.rows)
        return dataclasses.replace(layer, rows=rows, anchor=dataclasses.replace(layer.anchor, residual_exponents=()))

    plan = calibration.plan
    layers = {name: strip(layer) for name, layer in plan.layers.items()}
    return dataclasses.replace(calibration, plan=Plan(plan.steps, layers, plan.points))
