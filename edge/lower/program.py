"""The module that becomes method ``step``: denoiser with operator modules, time-step table, sampler update.

``step(x, i, first, [noise], *conditions) -> x'`` runs one step of the sampler:

    out = denoiser(input_scale[i]*x, timesteps[i], *conditions)
    D   = clip(p_x*x + p_e*out)
    x'  = c_x*x + c_e*out + c_d*D + c_1*D_before + c_2*x_before + c_n*noise    each product and sum rounded to float32
    D_before, x_before <- D, x

with the coefficients of ``first`` (the job's first step, which has no step before) or of the rest. Columns that are
zero throughout are left out, and so are the states and the noise that only they would read.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from calib.samplers import COLUMNS
from calib.sampling import condition_inputs
from calib.standin import StandIn
from edge.errors import LoweringError
from edge.lower.layers import STATES, OperatorLayer, StepHolder, build_layer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calib.modulated import ModulatedLayer, ModulatedModel
    from calib.samplers import Sampler

Shape = tuple[int, ...]

KEPT = {"c_1": "previous", "c_2": "origin"}
"""The state that a column of the sampler's tables reads."""


class SamplerUpdate(nn.Module):
    """The sampler's coefficients for every step, and what it keeps of the step before.

    Args:
        sampler: tables of T steps.
        sample_shape: of ``x``, [1, C, H, W].
    """

    input_scale: Tensor
    previous: Tensor
    origin: Tensor

    def __init__(self, sampler: Sampler, sample_shape: tuple[int, ...]) -> None:
        super().__init__()
        both = torch.cat([sampler.coefficients, sampler.first_coefficients]).to(torch.float32)
        self.steps = sampler.steps
        self.clip = sampler.clip
        self.columns = tuple(name for name in COLUMNS if name in sampler.columns)
        for number, name in enumerate(COLUMNS):
            if name in self.columns:
                self.register_buffer(name, both[:, number].reshape(-1, 1, 1, 1).clone())
        self.scales_input = sampler.scales_input
        if self.scales_input:
            self.register_buffer("input_scale", sampler.input_scale.reshape(-1, 1, 1, 1).clone())
        for column, state in KEPT.items():
            if column in self.columns:
                self.register_buffer(state, torch.zeros(sample_shape))

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the buffers that carry something to the next step."""
        return tuple(state for column, state in KEPT.items() if column in self.columns)

    def denoiser_input(self, x: Tensor, i: Tensor) -> Tensor:
        """What the denoiser sees: float32 like ``x`` at step ``i`` (int64 [1])."""
        scaled: Tensor = self.input_scale.index_select(0, i) * x if self.scales_input else x
        return scaled

    def forward(self, x: Tensor, out: Tensor, i: Tensor, first: Tensor, noise: Tensor | None = None) -> Tensor:
        """float32 [1, C, H, W] twice, int64 [1] twice, noise like x where the sampler draws it -> x' like x."""
        row = i + first * self.steps
        factors = {name: getattr(self, name).index_select(0, row) for name in self.columns}
        clean = self._clean(x, out, factors)
        terms = {"c_x": x, "c_e": out, "c_d": clean, "c_n": noise}
        terms |= {column: getattr(self, state) for column, state in KEPT.items() if column in self.columns}
        products = [factors[name] * terms[name] for name in self.columns if name.startswith("c_")]
        moved: Tensor = products[0]
        for product in products[1:]:
            moved = moved + product
        for state, value in (("previous", clean), ("origin", x)):
            if state in self.states:
                getattr(self, state).copy_(value)
        return moved

    def _clean(self, x: Tensor, out: Tensor, factors: Mapping[str, Tensor]) -> Tensor | None:
        """The predicted clean image; None where no column reads it."""
        if not {"c_d", "c_1"} & set(self.columns):
            return None
        products = [factors[name] * term for name, term in (("p_x", x), ("p_e", out)) if name in factors]
        clean: Tensor = products[0] + products[1] if len(products) == 2 else products[0]
        return clean if self.clip is None else clean.clamp(-self.clip, self.clip)


class StepProgram(nn.Module):
    """Method ``step`` as an eager module, ready for export.

    Args:
        denoiser: ``(x, t) -> eps``; its linear layers are replaced in place by ``layers``.
        layers: operator modules by dotted name in the denoiser.
        sampler: tables.
        sample_shape: (C, H, W).
        holder: shared with the operator modules.
        conditions: what the denoiser takes beside sample and time, one example each, in its order: [1, ...].
    """

    timesteps: Tensor

    def __init__(  # noqa: PLR0917 - the parts of a program
        self,
        denoiser: nn.Module,
        layers: Mapping[str, OperatorLayer],
        sampler: Sampler,
        sample_shape: tuple[int, int, int],
        holder: StepHolder,
        conditions: Sequence[Tensor] = (),
    ) -> None:
        super().__init__()
        for name, layer in layers.items():
            layer.stand_in_for(denoiser.get_submodule(name))
            denoiser.set_submodule(name, layer)
        self.denoiser = denoiser
        self.update = SamplerUpdate(sampler, (1, *sample_shape))
        self.register_buffer("timesteps", sampler.timesteps.clone())
        self.sample_shape = sample_shape
        self.holder = holder
        self.conditions = tuple(conditions)
        self.draws_noise = sampler.draws_noise

    @property
    def steps(self) -> int:
        """T."""
        return self.update.steps

    def forward(self, x: Tensor, i: Tensor, first: Tensor, *more: Tensor) -> Tensor:
        """One step.

        Args:
            x: float32 [1, C, H, W].
            i: int64 [1], the step.
            first: int64 [1], 1 on a job's first step.
            more: noise like x where the sampler draws it; then the conditions, [1, ...] each.
        """
        self.holder.step = i
        noise, conditions = (more[0], more[1:]) if self.draws_noise else (None, more)
        t = self.timesteps.index_select(0, i).reshape(())
        out = self.denoiser(self.update.denoiser_input(x, i), t, *conditions)
        return self.update(x, out, i, first, noise)  # type: ignore[no-any-return]

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Inputs of the right shapes and types, for export."""
        x, zero = torch.zeros(1, *self.sample_shape), torch.zeros(1, dtype=torch.int64)
        noise = [torch.zeros_like(x)] if self.draws_noise else []
        return x, zero, zero.clone(), *noise, *(condition.clone() for condition in self.conditions)

    def operator_layers(self) -> dict[str, OperatorLayer]:
        """Operator modules by name in the program."""
        return {name: module for name, module in self.named_modules() if isinstance(module, OperatorLayer)}

    def reset(self) -> None:
        """Zeroes every state: a new job."""
        for layer in self.operator_layers().values():
            layer.reset()
        for name in self.update.states:
            getattr(self.update, name).zero_()

    def state_buffers(self) -> dict[str, Tensor]:
        """Every buffer that ``step`` changes, by name in the program."""
        states = {
            f"{name}.{part}": getattr(layer, part) for name, layer in self.operator_layers().items() for part in STATES
        }
        return states | {f"update.{name}": getattr(self.update, name) for name in self.update.states}

    def state_bytes(self) -> dict[str, int]:
        """Bytes of each state buffer."""
        return {name: state.numel() * state.element_size() for name, state in self.state_buffers().items()}


def build_program(
    modulated: ModulatedModel,
    sampler: Sampler,
    sample_shape: tuple[int, int, int],
    conditions: Mapping[str, Tensor] | None = None,
) -> StepProgram:
    """The step program of a modulated model; the model itself is not changed.

    Args:
        modulated: denoiser with modulated layers.
        sampler: tables of as many steps as the plan has.
        sample_shape: (C, H, W) of the sample.
        conditions: examples of what else the denoiser takes, by name, [1, ...]; a batch is cut to its first entry.

    Raises:
        LoweringError: plan and sampler differ in steps, or a layer is not called exactly once a step.
        CalibrationError: a condition is missing or unknown.
    """
    for name, layer in modulated.layers.items():
        if len(layer.plan.rows) != sampler.steps:
            raise LoweringError(
                f"the plan has {len(layer.plan.rows)} steps, the sampler {sampler.steps}",
                where=name,
                mend="calibrate with this sampler",
            )
    denoiser = copy.deepcopy(modulated.denoiser)
    first = {name: tensor[:1] for name, tensor in (conditions or {}).items()}
    examples = condition_inputs(modulated, first, 1)
    shapes = observe_shapes(denoiser, modulated.layers, torch.zeros(1, *sample_shape), sampler.timesteps[0], *examples)
    holder = StepHolder()
    layers = {
        name: build_layer(layer.arithmetic, layer.plan, *shapes[name], holder)
        for name, layer in modulated.layers.items()
    }
    return StepProgram(denoiser, layers, sampler, sample_shape, holder, examples)


class ShapeProbe(StandIn):
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
        self.stand_in_for(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Float32 in the layer's input shape -> zeros in its output shape."""
        lifted = x.unsqueeze(-2) if self.one_dimensional else x
        y = self.operator(torch.empty(lifted.shape, device="meta"), torch.empty(self.weight_shape, device="meta"))
        shape = y.squeeze(-2).shape if self.one_dimensional else y.shape
        self.calls.append((tuple(x.shape), tuple(shape)))
        return torch.zeros(shape)


def observe_shapes(
    denoiser: nn.Module, layers: Mapping[str, ModulatedLayer], x: Tensor, t: Tensor, *conditions: Tensor
) -> dict[str, tuple[Shape, Shape]]:
    """Input and output shape of each layer in one call of the denoiser; probes take the layers' places.

    Raises:
        LoweringError: a layer that is not called, or is called more than once a step (it could not own one state).
    """
    probes = {name: ShapeProbe(layer) for name, layer in layers.items()}
    for name, probe in probes.items():
        denoiser.set_submodule(name, probe)
    with torch.no_grad():
        denoiser(x, t, *conditions)
    for name, probe in probes.items():
        if len(probe.calls) != 1:
            raise LoweringError(
                f"the layer is called {len(probe.calls)} times in a step, its state is for one",
                where=name,
                mend="take the layer out of the plan; it then stays in floating point",
            )
    return {name: probe.calls[0] for name, probe in probes.items()}
