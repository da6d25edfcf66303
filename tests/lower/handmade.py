"""A modulated model made by hand from any denoiser: integers by rounding, a plan that uses every kind of row."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from calib.modulated import MODULATED, ModulatedLayer, ModulatedModel
from calib.operators import bias_of, operator_of, weight_of
from calib.plan import LayerPlan, Mode, PlanRow
from calib.weights import LayerWeights, lattice_bits, quantize_weight

if TYPE_CHECKING:
    from torch import nn

LATTICE_STEP = 2.0**-8


def mixed_plan(steps: int, *, mode: Mode = Mode.DELTA, reuse: bool = False, residual: bool = True) -> LayerPlan:
    """A two-pass anchor, then single passes; residual passes every second step; with ``reuse`` every third step
    is held or extrapolated."""

    def row(i: int) -> PlanRow:
        rest = (4,) if residual and i % 2 == 0 else ()
        if reuse and i % 3 == 2:
            return PlanRow((), rest, extrapolates=i % 2 == 0)
        return PlanRow((5, 1) if mode is Mode.DIRECT else (1,), rest)

    return LayerPlan(mode, tuple(row(i) for i in range(steps)), PlanRow((5, 0), (5, 0) if residual else ()))


def modulate_layer(module: nn.Module, plan: LayerPlan) -> ModulatedLayer:
    """One layer with weights rounded to nearest and a fixed lattice step."""
    operator, _ = operator_of(module)
    main, rest, channel_scale = quantize_weight(operator, weight_of(module))
    bits = lattice_bits(operator, main, rest, wanted=13)
    weights = LayerWeights(main, rest, channel_scale, bias_of(module), torch.tensor(LATTICE_STEP), bits)
    return MODULATED[type(module)](operator, weights, plan)


def modulate_by_hand(denoiser: nn.Module, steps: int) -> ModulatedModel:
    """Every conv and linear layer but the time embedding: direct, single-plane, reused and plain layers mixed."""
    denoiser = copy.deepcopy(denoiser).eval().requires_grad_(requires_grad=False)
    layers = {}
    for name, module in list(denoiser.named_modules()):
        if type(module) not in MODULATED or "time_emb" in name:
            continue
        index = len(layers)
        mode = Mode.DIRECT if index % 5 == 4 else Mode.DELTA
        plan = mixed_plan(steps, mode=mode, reuse=mode is Mode.DELTA and index % 3 == 1, residual=index % 4 != 3)
        layers[name] = modulate_layer(module, plan)
        denoiser.set_submodule(name, layers[name])
    return ModulatedModel(denoiser, layers)
