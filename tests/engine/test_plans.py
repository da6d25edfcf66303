"""Random plans, reuse points, direct layers, jobs that start anywhere: the engine computes the reference's bits."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from calib import CalibrationConfig, build_sampler, calibrate, modulate, sample
from calib.models import PretrainedModel
from calib.noise import noise
from calib.plan import LayerPlan, Mode, Plan, PlanRow, PointPlan, Reuse
from calib.samplers import NoiseSchedule
from edge.device.engine_process import EngineCommand, EngineProcess
from edge.lower.export import lower
from edge.toolchain import build_engine

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 6
SHAPE = (2, 6, 5)


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ConvTranspose2d(12, 8, (2, 3), stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raised = self.wide(functional.relu(self.narrow(x)))
        out: torch.Tensor = raised[:, :, : x.shape[2], : x.shape[3]]
        return out


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.inner, self.after = nn.Conv2d(8, 8, 1), Inner(), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        high = functional.relu(self.before(x))
        out: torch.Tensor = self.after(high + self.inner(high))
        return out


class Nested(nn.Module):
    """Takes float32 [N, 2, 6, 5] and a timestep, returns the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.outer, self.last = nn.Conv2d(2, 8, 3, padding=1), Outer(), nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        high = functional.relu(self.first(x) + t.reshape(1, 1, 1, 1) * 2.0**-10)
        out: torch.Tensor = self.last(functional.relu(high + self.outer(high)))
        return out


def random_plan(plan: Plan, rng: np.random.Generator) -> Plan:
    """Direct layers, held, extrapolated and plain rows; layers within a reused block may have nothing to do there."""
    choices = list(Reuse)
    points = {
        f"outer{inner}": PointPlan(tuple(choices[code] for code in rng.integers(0, 3, STEPS)))
        for inner in ("", ".inner")
    }

    def idle(name: str, step: int) -> bool:
        around = [point for block, point in points.items() if name.startswith(f"{block}.")]
        return any(step not in point.refreshes for point in around)

    def random_row(name: str, step: int) -> PlanRow:
        if idle(name, step):
            return PlanRow(())
        main = tuple(int(k) for k in rng.integers(0, 8, rng.integers(0, 3)))
        return PlanRow(main, (6,) if rng.random() < 0.3 else (), extrapolates=not main and rng.random() < 0.5)

    layers = {}
    for name, layer in plan.layers.items():
        if rng.random() < 0.4:
            rows = tuple(PlanRow(()) if idle(name, i) else layer.anchor for i in range(STEPS))
            layers[name] = LayerPlan(Mode.DIRECT, rows, layer.anchor)
        else:
            layers[name] = LayerPlan(Mode.DELTA, tuple(random_row(name, i) for i in range(STEPS)), layer.anchor)
    return Plan(STEPS, layers, points)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_random_plans_give_the_references_bits_from_any_start(seed: int, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    schedule = NoiseSchedule(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    model = PretrainedModel(Nested().eval().requires_grad_(requires_grad=False), schedule, SHAPE, "nested", "0" * 64)
    sampler = build_sampler("ddim", STEPS, schedule)
    calibration = calibrate(model, sampler, CalibrationConfig(seeds=2, batch=2, residual_every=3))
    plan = random_plan(calibration.plan, np.random.default_rng(seed))
    assert any(layer.mode is Mode.DIRECT and not all(r.exponents for r in layer.rows) for layer in plan.layers.values())
    modulated = modulate(model, dataclasses.replace(calibration, plan=plan))
    program = lower(modulated, sampler, SHAPE)
    path = tmp_path / "program.pte"
    path.write_bytes(program.data)
    digest = hashlib.sha256(program.data).hexdigest()
    image = np.random.default_rng(seed).uniform(-1, 1, SHAPE).astype(np.float32)
    with EngineProcess(EngineCommand(build_engine("host").engine, path, digest, 1, program.state_bytes)) as engine:
        for start in range(STEPS):
            engine.begin(0, seed, start, image.tobytes())
            while engine.step(0).left:
                pass
            found = np.frombuffer(engine.result(0).image, "<f4")
            alpha, sigma = sampler.start_coefficients[start]
            x = alpha * torch.from_numpy(image)[None] + sigma * torch.from_numpy(noise(seed, (1, *SHAPE)))
            expected = sample(modulated, sampler, x, start).numpy().ravel()
            np.testing.assert_array_equal(found, expected, err_msg=f"start {start}")
