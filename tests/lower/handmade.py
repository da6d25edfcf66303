"""A step program made by hand from any denoiser: integers by rounding, a plan that uses every kind of row."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import nn

from calib.lattice import RESIDUAL_LEVELS, Kind, Operator
from calib.plan import LayerPlan, Mode, PlanRow
from edge.lower.layers import CONVOLUTIONS, LayerIntegers, StepHolder, build_layer
from edge.lower.program import StepProgram, observe_shapes

if TYPE_CHECKING:
    from calib.samplers import Sampler

LATTICE_BITS = 12
LATTICE_STEP = 2.0**-8


def mixed_plan(steps: int, *, mode: Mode = Mode.DELTA, reuse: bool = False) -> LayerPlan:
    """Two-pass anchor, then single passes with residual passes in between; with ``reuse`` every third step is held
    or extrapolated."""

    def row(i: int) -> PlanRow:
        residual = (4,) if i % 2 == 0 else ()
        if reuse and i % 3 == 2:
            return PlanRow((), residual, extrapolates=i % 2 == 0)
        return PlanRow((5, 1) if mode is Mode.DIRECT else (1,), residual)

    return LayerPlan(mode, tuple(row(i) for i in range(steps)), PlanRow((5, 0), (5, 0)))


def integers(module: nn.Module, plan: LayerPlan, *, planes: int = 2) -> LayerIntegers:
    """Rounded weights and residual of a conv or linear layer."""
    kind = Kind.LINEAR if isinstance(module, nn.Linear) else Kind.CONV
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d)):
        kind = Kind.TRANSPOSED
    operator = Operator(kind, groups=getattr(module, "groups", 1))
    four = module.weight.detach().unsqueeze(2) if module.weight.dim() == 3 else module.weight.detach()
    rows = operator.per_channel(four)
    channel_scale = rows.abs().amax(1) / 127
    main = (rows / channel_scale[:, None]).round()
    rest = ((rows / channel_scale[:, None] - main) * RESIDUAL_LEVELS).round().clamp(-127, 127)
    weight, residual = (
        operator.from_per_channel(part, four.shape).reshape(module.weight.shape).to(torch.int8)
        for part in (main, rest)
    )
    table = torch.from_numpy(plan.table())
    return LayerIntegers(
        weight,
        residual if planes == 2 else None,
        channel_scale,
        None if module.bias is None else module.bias.detach(),
        LATTICE_STEP,
        LATTICE_BITS,
        table,
        plan.mode is Mode.DIRECT,
    )


def handmade_program(denoiser: nn.Module, sampler: Sampler, sample_shape: tuple[int, int, int]) -> StepProgram:
    """Every conv and linear layer but the time embedding as an operator: direct, one plane, reuse and plain mixed."""
    denoiser = deepcopy(denoiser).eval()
    names = [
        name
        for name, module in denoiser.named_modules()
        if isinstance(module, (nn.Linear, *CONVOLUTIONS)) and "time_emb" not in name
    ]
    example = (torch.zeros(1, *sample_shape), torch.zeros(1, dtype=torch.int64))
    shapes = observe_shapes(denoiser, names, example)
    holder = StepHolder()
    layers = {}
    for index, name in enumerate(names):
        mode = Mode.DIRECT if index % 5 == 4 else Mode.DELTA
        plan = mixed_plan(sampler.steps, mode=mode, reuse=mode is Mode.DELTA and index % 3 == 1)
        module = denoiser.get_submodule(name)
        made = integers(module, plan, planes=1 if index % 4 == 3 else 2)
        layers[name] = build_layer(name, module, made, *shapes[name], holder)
    return StepProgram(denoiser, layers, sampler, sample_shape, holder)
