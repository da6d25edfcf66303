"""Reuse points: what they give out at each step, and that a model with them computes the same as by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from calib.calibration import CalibrationConfig, calibrate
from calib.errors import CalibrationError, PlanError
from calib.models import PretrainedModel
from calib.modulated import ModulatedModel, modulate
from calib.plan import Plan, PlanRow, PointPlan, Reuse
from calib.reuse import ReusePoint, attached
from calib.samplers import NoiseSchedule, build_sampler

R, H, E = Reuse.REFRESH, Reuse.HOLD, Reuse.EXTRAPOLATE


def run(rows: tuple[Reuse, ...], values: list[float], start: int = 0) -> tuple[list[float], list[int]]:
    """Outputs of a point from step ``start``, and the steps at which it computed."""
    point, outputs, computed = ReusePoint(PointPlan(rows)), [], []
    for i in range(start, len(rows)):
        point.step = i

        def compute(i: int = i) -> torch.Tensor:
            computed.append(i)
            return torch.tensor([values[i]])

        outputs.append(float(point(compute)))
    return outputs, computed


def test_rows_say_when_to_compute_to_hold_and_to_extrapolate() -> None:
    values = [1.0, 2.0, 4.0, 10.0, 17.0, 32.0, 64.0]
    assert run((R, H, E, R, E, H, R), values) == ([1.0, 1.0, 1.0, 10.0, 13.0, 10.0, 64.0], [0, 3, 6])
    assert run((R, R, E, E, R, E, E), values) == ([1.0, 2.0, 3.0, 4.0, 17.0, 22.0, 27.0], [0, 1, 4])


def test_a_job_refreshes_first_wherever_it_starts() -> None:
    assert run((H, H, E, H), [1.0, 2.0, 3.0, 4.0]) == ([1.0, 1.0, 1.0, 1.0], [0])
    assert run((R, H, E, H), [1.0, 2.0, 3.0, 4.0], start=2) == ([3.0, 3.0], [2])


def test_each_operation_of_an_extrapolation_rounds_to_float32() -> None:
    y0, y1 = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    point = ReusePoint(PointPlan((R, H, H, R, H, H, H, E)))
    for step, y in ((0, y0), (3, y1)):
        point.step = step
        point(lambda y=y: y)
    point.step = 7
    share = torch.tensor(4.0) / torch.tensor(3.0)
    difference = y1 - y0
    product = share * difference
    assert torch.equal(point(lambda: pytest.fail("computed")), y1 + product)


class Stack(nn.Module):
    """Two blocks and a skip, as a UNet in small."""

    def __init__(self) -> None:
        super().__init__()
        self.outer = nn.Conv2d(2, 4, 3, padding=1)
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 4, 1))
        self.last = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        skip = self.outer(x).relu_()
        return self.last(torch.cat([skip, self.inner(skip).mul_(0.5)], dim=1))


def stack() -> PretrainedModel:
    torch.manual_seed(0)
    schedule = NoiseSchedule.from_diffusers({})
    return PretrainedModel(Stack().eval().requires_grad_(requires_grad=False), schedule, (2, 6, 6), "stack", "0" * 64)


def test_a_held_block_does_not_run_and_its_output_cannot_be_damaged() -> None:
    model = stack().denoiser
    assert isinstance(model, Stack)
    reused = ModulatedModel(model, {}, {"inner": ReusePoint(PointPlan((R, H, H)))})
    t, inputs = torch.tensor(0), torch.randn(3, 1, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    block = model.inner(model.outer(inputs[0]).relu_()).mul_(0.5)
    calls: list[int] = []
    model.inner[0].register_forward_hook(lambda *_: calls.append(1))
    for i, x in enumerate(inputs):
        reused.set_step(i)
        expected = model.last(torch.cat([model.outer(x).relu_(), block], dim=1))
        assert torch.equal(reused(x, t), expected)
    assert calls == [1]
    assert "forward" not in model.inner.__dict__


def test_layers_inside_a_held_block_do_nothing_and_the_others_go_on() -> None:
    model = stack()
    sampler = build_sampler("ddim", 4, model.schedule)
    calibration = calibrate(model, sampler, CalibrationConfig(seeds=2, residual_every=0))
    layers = {}
    for name, layer in calibration.plan.layers.items():
        rows = tuple(PlanRow(()) if "inner" in name and i in {1, 2} else row for i, row in enumerate(layer.rows))
        layers[name] = dataclasses.replace(layer, rows=rows)
    plan = Plan(4, layers, {"inner": PointPlan((R, H, E, R))})
    modulated = modulate(model.denoiser, dataclasses.replace(calibration, plan=plan))
    for i in range(4):
        modulated.set_step(i)
        modulated(torch.full((1, 2, 6, 6), 0.1 * i), sampler.timesteps[i])
    assert {name: layer.counts.passes for name, layer in modulated.layers.items()} == {
        "outer": 5, "inner.0": 3, "inner.2": 3, "last": 5
    }  # fmt: skip
    assert modulated.points["inner"].refreshes == 2
    modulated.reset()
    assert modulated.points["inner"].held is None


def test_what_cannot_carry_a_point_is_refused() -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    point = {"0": ReusePoint(PointPlan((R,)))}
    pair = nn.Sequential(Pair())
    with attached(pair, point), pytest.raises(PlanError, match="tuple"):
        pair(torch.zeros(1))
    with pytest.raises(PlanError, match="no such module"), attached(pair, {"1": point["0"]}):
        pass
    model = stack()
    calibration = calibrate(model, build_sampler("ddim", 2, model.schedule), CalibrationConfig(seeds=2))
    plan = dataclasses.replace(calibration.plan, points={"elsewhere": PointPlan((R, R))})
    with pytest.raises(CalibrationError, match="no such module"):
        modulate(model.denoiser, dataclasses.replace(calibration, plan=plan))
