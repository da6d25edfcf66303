"""Modulated models small enough to export in a test: the tiny UNet, and a denoiser of every other kind of layer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn import functional

from calib.calibration import CalibrationConfig, calibrate
from calib.models import PretrainedModel, load_model
from calib.modulated import ModulatedModel, modulate
from calib.plan import LayerPlan, Mode, Plan, PlanRow
from calib.samplers import Sampler, build_sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TINY_STEPS = 6


class OddDenoiser(nn.Module):
    """One of each: grouped, dilated, strided, transposed and one-dimensional convolutions, linear, a float layer."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(1, 8)
        self.grouped = nn.Conv2d(2, 8, 3, padding="same", groups=2)
        self.strided = nn.Conv2d(8, 12, (3, 2), stride=2, padding=1, dilation=(2, 1), bias=False)
        self.raised = nn.ConvTranspose2d(12, 8, 3, stride=2, padding=1, output_padding=(1, 0), groups=4)
        self.row = nn.Conv1d(8, 6, 3, padding=1)
        self.row_raised = nn.ConvTranspose1d(6, 8, 2, stride=2)
        self.mix = nn.Linear(8, 8)
        self.circular = nn.Conv2d(8, 2, 3, padding=1, padding_mode="circular")

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        high = functional.silu(self.grouped(x) + self.time(t.reshape(1, 1) / 1000.0)[:, :, None, None])
        low = functional.silu(self.strided(high))
        raised = self.raised(low)
        rows = self.row_raised(functional.silu(self.row(raised.flatten(2))))
        wide = functional.adaptive_avg_pool2d(rows.reshape(1, 8, -1, raised.shape[-1]), x.shape[-2:])
        mixed = self.mix((high + wide).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.circular(mixed)


def mixed_plan(plan: Plan) -> Plan:
    """Every kind of row: direct layers, layers without a residual plane, held and extrapolated steps."""

    def change(index: int, layer: LayerPlan) -> LayerPlan:
        if index % 5 == 4:
            return dataclasses.replace(layer, mode=Mode.DIRECT, rows=(layer.anchor,) * plan.steps)
        if index % 4 == 3:
            bare = [dataclasses.replace(row, residual_exponents=()) for row in (*layer.rows, layer.anchor)]
            return LayerPlan(layer.mode, tuple(bare[:-1]), bare[-1])
        if index % 3 == 1:
            rows = [
                PlanRow((), (2,) if i == 4 else (), extrapolates=i != 2) if i in {2, 4, 5} else row
                for i, row in enumerate(layer.rows)
            ]
            return LayerPlan(layer.mode, tuple(rows), layer.anchor)
        return layer

    return Plan(plan.steps, {name: change(i, layer) for i, (name, layer) in enumerate(plan.layers.items())})


@dataclasses.dataclass(frozen=True)
class Case:
    """A modulated model and the sampler it was calibrated with."""

    model: PretrainedModel
    modulated: ModulatedModel
    sampler: Sampler


def precise_plan(plan: Plan) -> Plan:
    """The mixed plan with the anchor's passes wherever there is one: states follow their inputs to a lattice step."""
    every = {
        name: LayerPlan(layer.mode, (layer.anchor,) * plan.steps, layer.anchor) for name, layer in plan.layers.items()
    }
    return mixed_plan(Plan(plan.steps, every))


def make_case(
    model: PretrainedModel,
    sampler_name: str,
    steps: int,
    residual_every: int | None = 3,
    change: Callable[[Plan], Plan] = mixed_plan,
) -> Case:
    """Calibrates on two seeds, then puts another plan in the uniform one's place."""
    sampler = build_sampler(sampler_name, steps, model.schedule)
    calibration = calibrate(model, sampler, CalibrationConfig(seeds=2, batch=2, residual_every=residual_every))
    mixed = dataclasses.replace(calibration, plan=change(calibration.plan))
    return Case(model, modulate(model.denoiser, mixed), sampler)


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors: more threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_case(tiny_model_folder: Path) -> Case:
    """The tiny UNet with the multistep solver."""
    return make_case(load_model(tiny_model_folder), "dpmpp2m", TINY_STEPS)


@pytest.fixture(scope="session")
def odd_case(tiny_model_folder: Path) -> Case:
    """The denoiser of odd layers with DDIM, whose ``D`` is clipped."""
    torch.manual_seed(3)
    schedule = load_model(tiny_model_folder).schedule
    denoiser = OddDenoiser().eval().requires_grad_(requires_grad=False)
    return make_case(PretrainedModel(denoiser, schedule, (2, 9, 10), "odd", "0" * 64), "ddim", TINY_STEPS)
