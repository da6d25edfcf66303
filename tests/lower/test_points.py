"""Reuse points in a program: the reference's outputs, and nothing inside a held block runs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn import functional

from calib.calibration import CalibrationConfig, calibrate
from calib.models import PretrainedModel, load_model
from calib.modulated import modulate
from calib.noise import noise
from calib.plan import LayerPlan, Mode, Plan, PlanRow, PointPlan, Reuse
from calib.samplers import build_sampler
from calib.sampling import sample, start_generation
from edge.errors import LoweringError
from edge.lower.export import export_step, lower_exported
from edge.lower.points import add_points
from edge.lower.program import build_program
from tests.lower.conftest import Case

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 5
OFF = {2, 3}
POINT = PointPlan((Reuse.REFRESH, Reuse.REFRESH, Reuse.HOLD, Reuse.EXTRAPOLATE, Reuse.REFRESH))


class Block(nn.Module):
    """Two readers of one norm, a gate between, so that an operator without states is inside."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 8)
        self.left, self.right = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        high = functional.silu(self.norm(x))
        gated: torch.Tensor = self.left(high) * torch.tanh(self.right(high))
        return gated


class Blocked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.block, self.last = nn.Conv2d(1, 8, 3, padding=1), Block(), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        high = self.first(x) + t.reshape(1, 1, 1, 1) / 1000.0
        out: torch.Tensor = self.last(high + self.block(high))
        return out


@pytest.fixture(scope="module")
def case(tiny_model_folder: Path) -> Case:
    torch.manual_seed(5)
    denoiser = Blocked().eval().requires_grad_(requires_grad=False)
    model = PretrainedModel(denoiser, load_model(tiny_model_folder).schedule, (1, 8, 8), "blocked", "0" * 64)
    sampler = build_sampler("ddim", STEPS, model.schedule)
    calibration = calibrate(model, sampler, CalibrationConfig(seeds=2, batch=2))

    def change(name: str, layer: LayerPlan) -> LayerPlan:
        inside = name.startswith("block.")
        rows = tuple(PlanRow(()) if inside and i in OFF else layer.anchor for i in range(STEPS))
        return LayerPlan(Mode.DELTA, rows, layer.anchor)

    layers = {name: change(name, layer) for name, layer in calibration.plan.layers.items()}
    plan = Plan(STEPS, layers, {"block": POINT})
    return Case(model, modulate(denoiser, dataclasses.replace(calibration, plan=plan)), sampler)


@torch.no_grad()
def test_points_give_the_references_image_whatever_the_start(case: Case) -> None:
    program = build_program(case.modulated, case.sampler, case.model.sample_shape)
    add_points(program, {name: point.plan for name, point in case.modulated.points.items()})
    exported = export_step(program)
    module = exported.module(check_guards=False)
    calls = [node for node in module.graph.nodes if node.op == "call_function"]
    tables = [node for node in module.graph.nodes if node.op == "get_attr" and str(node.target).startswith("active_")]
    assert any("reuse" in str(node.target) for node in calls)
    switched = [getattr(module, str(node.target)).tolist() for node in tables]
    assert [int(i not in OFF) for i in range(STEPS)] + [1] * STEPS in switched
    for start in (0, 2, 3):
        x = start_generation(case.sampler, torch.from_numpy(noise(5, case.model.sample_shape))[None])
        expected = sample(case.modulated, case.sampler, x, start)
        for name, buffer in module.named_buffers():
            if name.rpartition(".")[2] in {"lattice", "accumulator", "history", "counters", "held"}:
                buffer.zero_()
        for i in range(start, STEPS):
            x = module(x, torch.tensor([i]), torch.tensor([int(i == start)]))
        assert float((x - expected).abs().max()) < 1e-3, "an undefined value would be NaN"
    lowered = lower_exported(exported, program, case.sampler)
    assert lowered.counts["modiff::reuse.out"] == 1


def test_what_cannot_be_reused_is_named(case: Case) -> None:
    program = build_program(case.modulated, case.sampler, case.model.sample_shape)
    with pytest.raises(LoweringError, match="point elsewhere: the model has no such module"):
        add_points(program, {"elsewhere": POINT})
