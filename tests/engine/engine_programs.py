"""A small denoiser whose every operation is exact in float32, and its program.

Convolutions of all kinds, a linear layer, ReLU, sums, an average over pixels: no exponential, and rounding in one order
only. So the engine's images must equal the reference's bit for bit, on every instruction set.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from calib import CalibrationConfig, calibrate
from calib.models import PretrainedModel
from calib.modulated import ModulatedModel, modulate
from calib.plan import LayerPlan, Mode, Plan, PlanRow
from calib.samplers import NoiseSchedule, Sampler, build_sampler

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 7
SHAPE = (2, 9, 10)


class ExactDenoiser(nn.Module):
    """Takes float32 [N, 2, 9, 10] and a timestep, returns the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(1, 8)
        self.grouped = nn.Conv2d(2, 8, 3, padding=1, groups=2)
        self.strided = nn.Conv2d(8, 20, (3, 2), stride=2, padding=(1, 0), dilation=(2, 1), bias=False)
        self.raised = nn.ConvTranspose2d(20, 8, 3, stride=2, padding=1, output_padding=(1, 0), groups=4)
        self.row = nn.Conv1d(8, 8, 3, padding=1)
        self.mix = nn.Linear(8, 8)
        self.last = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        high = functional.relu(self.grouped(x) + self.time(t.reshape(1, 1) * 2.0**-10)[:, :, None, None])
        raised = self.raised(functional.relu(self.strided(high)))
        rows = self.row(raised.flatten(2)).reshape(raised.shape)
        wide = functional.pad(rows, (0, 10 - rows.shape[-1], 0, 9 - rows.shape[-2]))
        mixed = self.mix((high + wide).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.last(functional.relu(mixed) + functional.avg_pool2d(mixed, 3, 1, 1))


@dataclass(frozen=True)
class Program:
    """A lowered program and the reference that it must equal."""

    path: Path
    program_id: str
    state_bytes: int
    modulated: ModulatedModel
    sampler: Sampler


def build_program(folder: Path, seed: int = 3) -> Program:
    """Calibrates the exact denoiser, mixes its plan, lowers it into ``folder``."""
    from edge.lower.export import lower

    torch.manual_seed(seed)
    schedule = NoiseSchedule(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    denoiser = ExactDenoiser().eval().requires_grad_(requires_grad=False)
    model = PretrainedModel(denoiser, schedule, SHAPE, "exact", "0" * 64)
    sampler = build_sampler("dpmpp2m", STEPS, schedule)
    calibration = calibrate(model, sampler, CalibrationConfig(seeds=2, batch=2, residual_every=3))
    modulated = modulate(denoiser, dataclasses.replace(calibration, plan=_mixed(calibration.plan)))
    lowered = lower(modulated, sampler, SHAPE)
    path = folder / f"program-{seed}.pte"
    path.write_bytes(lowered.data)
    return Program(path, hashlib.sha256(lowered.data).hexdigest(), lowered.state_bytes, modulated, sampler)


def _mixed(plan: Plan) -> Plan:
    """Direct layers, held and extrapolated steps beside refreshed ones."""

    def change(index: int, layer: LayerPlan) -> LayerPlan:
        if index == 2:
            return dataclasses.replace(layer, mode=Mode.DIRECT, rows=(layer.anchor,) * plan.steps)
        if index % 2 == 1:
            reused = {3: PlanRow((), extrapolates=True), 4: PlanRow((), (2,)), 6: PlanRow((), (1,), extrapolates=True)}
            rows = tuple(reused.get(step, row) for step, row in enumerate(layer.rows))
            return LayerPlan(layer.mode, rows, layer.anchor)
        return layer

    return Plan(plan.steps, {name: change(i, layer) for i, (name, layer) in enumerate(plan.layers.items())})
