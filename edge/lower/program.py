"""The module that becomes method ``step``: denoiser with operator modules, time-step table, sampler update.

``step(x, i, first) -> x'`` runs one step of the sampler:

    eps = denoiser(x, timesteps[i])
    D   = clip(p_x*x + p_e*eps)
    x'  = ((c_x*x + c_e*eps) + c_d*D) + c_p*D_prev        each product and sum rounded to float32
    D_prev <- D

with the coefficients of ``first`` (the job's first step, where multistep solvers are of first order) or of the rest.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edge.errors import LoweringError
from edge.lower.layers import STATES, OperatorLayer, StepHolder, build_layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calib.modulated import ModulatedLayer, ModulatedModel
    from calib.samplers import Sampler

Shape = tuple[int, ...]

COEFFICIENTS = ("p_x", "p_e", "c_x", "c_e", "c_d", "c_p")
"""Columns of the sampler's tables."""


class SamplerUpdate(nn.Module):
    """The sampler's coefficients for every step, and ``D_prev``.

    Args:
        sampler: tables of T steps.
        sample_shape: of ``x``, [1, C, H, W].
    """

    previous: Tensor

    def __init__(self, sampler: Sampler, sample_shape: tuple[int, ...]) -> None:
        super().__init__()
        both = torch.cat([sampler.coefficients, sampler.first_coefficients]).to(torch.float32)
        self.steps = sampler.coefficients.shape[0]
        self.clip = sampler.clip
        self.multistep = bool((both[:, COEFFICIENTS.index("c_p")] != 0).any())
        for column, name in enumerate(COEFFICIENTS):
            self.register_buffer(name, both[:, column].reshape(-1, 1, 1, 1).clone())
        if self.multistep:
            self.register_buffer("previous", torch.zeros(sample_shape))

    def forward(self, x: Tensor, eps: Tensor, i: Tensor, first: Tensor) -> Tensor:
        """float32 [1, C, H, W] twice, int64 [1] twice -> x' like x."""
        row = i + first * self.steps
        p_x, p_e, c_x, c_e, c_d, c_p = (getattr(self, name).index_select(0, row) for name in COEFFICIENTS)
        data = p_x * x + p_e * eps
        if self.clip is not None:
            data = data.clamp(-self.clip, self.clip)
        moved: Tensor = (c_x * x + c_e * eps) + c_d * data
        if self.multistep:
            moved = moved + c_p * self.previous
            self.previous.copy_(data)
        return moved


class StepProgram(nn.Module):
    """Method ``step`` as an eager module, ready for export.

    Args:
        denoiser: ``(x, t) -> eps``; its linear layers are replaced in place by ``layers``.
        layers: operator modules by dotted name in the denoiser.
        sampler: tables.
        sample_shape: (C, H, W).
        holder: shared with the operator modules.
    """

    timesteps: Tensor

    def __init__(
        self,
        denoiser: nn.Module,
        layers: Mapping[str, OperatorLayer],
        sampler: Sampler,
        sample_shape: tuple[int, int, int],
        holder: StepHolder,
    ) -> None:
        super().__init__()
        for name, layer in layers.items():
            denoiser.set_submodule(name, layer)
        self.denoiser = denoiser
        self.update = SamplerUpdate(sampler, (1, *sample_shape))
        self.register_buffer("timesteps", sampler.timesteps.clone())
        self.sample_shape = sample_shape
        self.holder = holder

    @property
    def steps(self) -> int:
        """T."""
        return self.update.steps

    def forward(self, x: Tensor, i: Tensor, first: Tensor) -> Tensor:
        """One step: float32 [1, C, H, W], int64 [1], int64 [1] (1 on a job's first step) -> x' like x."""
        self.holder.step = i
        eps = self.denoiser(x, self.timesteps.index_select(0, i).reshape(()))
        return self.update(x, eps, i, first)  # type: ignore[no-any-return]

    def example_inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of the right shapes and types, for export."""
        zero = torch.zeros(1, dtype=torch.int64)
        return torch.zeros(1, *self.sample_shape), zero, zero.clone()

    def operator_layers(self) -> dict[str, OperatorLayer]:
        """Operator modules by name in the program."""
        return {name: module for name, module in self.named_modules() if isinstance(module, OperatorLayer)}

    def reset(self) -> None:
        """Zeroes every state: a new job."""
        for layer in self.operator_layers().values():
            layer.reset()
        if self.update.multistep:
            self.update.previous.zero_()

    def state_buffers(self) -> dict[str, Tensor]:
        """Every buffer that ``step`` changes, by name in the program."""
        states = {
            f"{name}.{part}": getattr(layer, part) for name, layer in self.operator_layers().items() for part in STATES
        }
        if self.update.multistep:
            states["update.previous"] = self.update.previous
        return states

    def state_bytes(self) -> dict[str, int]:
        """Bytes of each state buffer."""
        return {name: state.numel() * state.element_size() for name, state in self.state_buffers().items()}


def build_program(modulated: ModulatedModel, sampler: Sampler, sample_shape: tuple[int, int, int]) -> StepProgram:
    """The step program of a modulated model; the model itself is not changed.

    Args:
        modulated: denoiser with modulated layers.
        sampler: tables of as many steps as the plan has.
        sample_shape: (C, H, W) of the sample.

    Raises:
        LoweringError: plan and sampler differ in steps, or a layer is not called exactly once a step.
    """
    for name, layer in modulated.layers.items():
        if len(layer.plan.rows) != sampler.steps:
            raise LoweringError(
                f"the plan has {len(layer.plan.rows)} steps, the sampler {sampler.steps}",
                where=name,
                mend="calibrate with this sampler",
            )
    denoiser = copy.deepcopy(modulated.denoiser)
    shapes = observe_shapes(denoiser, modulated.layers, torch.zeros(1, *sample_shape), sampler.timesteps[0])
    holder = StepHolder()
    layers = {
        name: build_layer(layer.arithmetic, layer.plan, *shapes[name], holder)
        for name, layer in modulated.layers.items()
    }
    return StepProgram(denoiser, layers, sampler, sample_shape, holder)


class ShapeProbe(nn.Module):
    """Stands in for a modulated layer: keeps the shapes it is called with and returns zeros, at no cost.

    Args:
        layer: gives operator and weight shape.
    """

    def __init__(self, layer: ModulatedLayer) -> None:
        super().__init__()
        self.operator = layer.operator
        self.weight_shape = layer.arithmetic.planes[0].weight.shape
        self.one_dimensional = layer.spatial == 1
        self.calls: list[tuple[Shape, Shape]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Float32 in the layer's input shape -> zeros in its output shape."""
        lifted = x.unsqueeze(-2) if self.one_dimensional else x
        y = self.operator(torch.empty(lifted.shape, device="meta"), torch.empty(self.weight_shape, device="meta"))
        shape = y.squeeze(-2).shape if self.one_dimensional else y.shape
        self.calls.append((tuple(x.shape), tuple(shape)))
        return torch.zeros(shape)


def observe_shapes(
    denoiser: nn.Module, layers: Mapping[str, ModulatedLayer], x: Tensor, t: Tensor
) -> dict[str, tuple[Shape, Shape]]:
    """Input and output shape of each layer in one call ``denoiser(x, t)``; probes take the layers' places.

    Raises:
        LoweringError: a layer that is not called, or is called more than once a step (it could not own one state).
    """
    probes = {name: ShapeProbe(layer) for name, layer in layers.items()}
    for name, probe in probes.items():
        denoiser.set_submodule(name, probe)
    with torch.no_grad():
        denoiser(x, t)
    for name, probe in probes.items():
        if len(probe.calls) != 1:
            raise LoweringError(
                f"the layer is called {len(probe.calls)} times in a step, its state is for one",
                where=name,
                mend="take the layer out of the plan; it then stays in floating point",
            )
    return {name: probe.calls[0] for name, probe in probes.items()}
