"""Modulated layers: a float model's convolutions and linears, replaced by the arithmetic of ``calib.lattice``.

``modulate`` copies a denoiser, swaps every layer that the calibration's plan names and puts the plan's reuse points
(``calib.reuse``) around its blocks. The copy runs a sampler's steps in order: ``reset()`` starts a job, ``set_step(i)``
says which step comes; a batch is so many jobs in lockstep.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from calib.errors import CalibrationError
from calib.lattice import (
    IntegerOperator,
    LayerArithmetic,
    LayerState,
    Operator,
    StepCounts,
    fresh_state,
    read_output,
    run_step,
)
from calib.operators import operator_of, plain_type
from calib.plan import Mode
from calib.reuse import ReusePoint, attached
from calib.standin import StandIn

if TYPE_CHECKING:
    from calib.adapters import PretrainedModel
    from calib.calibration import Calibration
    from calib.plan import LayerPlan, PlanRow
    from calib.weights import LayerWeights


class ModulatedLayer(StandIn):
    """Base of the modulated layers: a quantized operator, its plan and the state of the running job.

    Args:
        operator: geometry, as two-dimensional.
        weights: INT8 planes, lattice step, scales and bias.
        plan: of this layer.

    Attributes:
        state: None before the first step of a job (and always, in mode direct).
        counts: passes and saturations of this layer since ``reset``.
    """

    spatial: ClassVar[int] = 2

    def __init__(self, operator: Operator, weights: LayerWeights, plan: LayerPlan) -> None:
        super().__init__()
        self.operator = operator
        self.weights = weights
        self.plan = plan
        planes = [weights.main, *([weights.residual] if plan.uses_residual else [])]
        self.arithmetic = LayerArithmetic(
            tuple(IntegerOperator(operator, plane) for plane in planes),
            weights.output_scales()[: len(planes)],
            weights.bias,
            weights.inverse_step,
            weights.lattice_bits,
            keeps_history=plan.extrapolates,
        )
        self.step = 0
        self.counts = StepCounts()
        self.state: LayerState | None = None
        self._keeps_output = any(_is_held(row) for row in plan.rows)
        self._output: torch.Tensor | None = None

    def reset(self) -> None:
        """Forget the job: the next call is the first step of another."""
        self.state = self._output = None
        self.counts = StepCounts()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 in the float layer's input shape -> float32 in its output shape."""
        if self.spatial == 1:
            return self._run(x.unsqueeze(-2)).squeeze(-2)
        return self._run(x)

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        row = self.plan.row(self.step, fresh=self.state is None)
        if self.plan.mode is Mode.DIRECT:
            state = fresh_state(self.arithmetic, x)
        elif self.state is None:
            state = self.state = fresh_state(self.arithmetic, x)
        else:
            state = self.state
            if _is_held(row) and self._output is not None:
                return self._output.clone()
        y = run_step(self.arithmetic, state, x, row=row, step=self.step, counts=self.counts)
        if self._keeps_output and self.plan.mode is Mode.DELTA:
            # An extrapolated output is not the state's; the next held step reads the state anew.
            self._output = None if row.extrapolates else y.clone()
        return y

    def output(self) -> torch.Tensor:
        """``y`` of the present state; raises CalibrationError before the first step."""
        if self.state is None:
            raise CalibrationError("the layer has no state yet", mend="run a step first")
        return read_output(self.arithmetic, self.state)


def _is_held(row: PlanRow) -> bool:
    """Whether nothing of the layer changes at such a row, so that its last output is also its next."""
    return not row.exponents and not row.residual_exponents and not row.extrapolates


class ModulatedConv2d(ModulatedLayer):
    """``[N, C, H, W] -> [N, OC, OH, OW]``."""


class ModulatedConv1d(ModulatedLayer):
    """``[N, C, W] -> [N, OC, OW]``, run as a convolution of height 1."""

    spatial = 1


class ModulatedConvTranspose2d(ModulatedLayer):
    """``[N, C, H, W] -> [N, OC, OH, OW]``."""


class ModulatedConvTranspose1d(ModulatedLayer):
    """``[N, C, W] -> [N, OC, OW]``, run as a transposed convolution of height 1."""

    spatial = 1


class ModulatedLinear(ModulatedLayer):
    """``[..., C] -> [..., OC]``."""


MODULATED: dict[type[nn.Module], type[ModulatedLayer]] = {
    nn.Conv1d: ModulatedConv1d,
    nn.Conv2d: ModulatedConv2d,
    nn.ConvTranspose1d: ModulatedConvTranspose1d,
    nn.ConvTranspose2d: ModulatedConvTranspose2d,
    nn.Linear: ModulatedLinear,
}
"""Float layer -> modulated layer; ``calib.operators.plain_type`` says which of these a subclass counts as."""


class ModulatedModel(nn.Module):
    """A denoiser whose planned layers are modulated; called as the float one, ``(x, t, *conditions) -> out``.

    Args:
        denoiser: already holding ``ModulatedLayer`` modules.
        layers: those modules by the name that the plan has for them.
        points: reuse points by the name of the module they sit on; that module is not replaced.
    """

    def __init__(
        self, denoiser: nn.Module, layers: dict[str, ModulatedLayer], points: dict[str, ReusePoint] | None = None
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.layers = layers
        self.points = points if points is not None else {}

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the conditions, in the denoiser's order."""
        names: tuple[str, ...] = getattr(self.denoiser, "condition_names", ())
        return names

    def forward(self, x: torch.Tensor, t: torch.Tensor, *conditions: torch.Tensor) -> torch.Tensor:
        """float32 ``[N, C, H, W]``, the timestep and what else the denoiser takes -> float32 like the first."""
        with attached(self.denoiser, self.points):
            out: torch.Tensor = self.denoiser(x, t, *conditions)
        return out

    def reset(self) -> None:
        """Start another job."""
        for part in self._parts():
            part.reset()

    def set_step(self, i: int) -> None:
        """Say which sampler step the next call runs."""
        for part in self._parts():
            part.step = i

    def counts(self) -> StepCounts:
        """Passes and saturations of all layers since ``reset``."""
        total = StepCounts()
        for layer in self.layers.values():
            total.add(layer.counts)
        return total

    def _parts(self) -> tuple[ModulatedLayer | ReusePoint, ...]:
        return (*self.layers.values(), *self.points.values())


def modulate(model: nn.Module | PretrainedModel, calibration: Calibration) -> ModulatedModel:
    """A copy of the denoiser with the calibrated layers replaced.

    Args:
        model: the float model that was calibrated, or its denoiser; it is not changed.
        calibration: weights, scales and plan by layer name.

    Raises:
        CalibrationError: the model has no such layer or module, or a layer of another shape.
    """
    denoiser = model if isinstance(model, nn.Module) else model.denoiser
    modulated = copy.deepcopy(denoiser).eval().requires_grad_(requires_grad=False)
    modules = dict(modulated.named_modules())
    layers: dict[str, ModulatedLayer] = {}
    for name, plan in calibration.plan.layers.items():
        module, weights = modules.get(name), calibration.layers[name]
        kind = plain_type(module) if module is not None else None
        if module is None or kind is None:
            raise CalibrationError("the model has no such layer", where=name, mend="calibrate this model anew")
        operator, shape = operator_of(module)
        if shape != weights.main.shape:
            raise CalibrationError(
                f"the layer's weights are {tuple(shape)}, calibrated were {tuple(weights.main.shape)}",
                where=name,
                mend="calibrate this model anew",
            )
        layers[name] = MODULATED[kind](operator, weights, plan)
        layers[name].stand_in_for(module)
        parent, _, child = name.rpartition(".")
        setattr(modules[parent], child, layers[name])
    for name in calibration.plan.points:
        if name not in modules:
            raise CalibrationError("the model has no such module", where=name, mend="calibrate this model anew")
    points = {name: ReusePoint(point) for name, point in calibration.plan.points.items()}
    return ModulatedModel(modulated, layers, points)
