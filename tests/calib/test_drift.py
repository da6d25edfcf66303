"""A thousand steps: the integers still fit each other, and the image is no farther off than early on."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from calib.adapters import PretrainedModel, adapt
from calib.calibration import Calibration, CalibrationConfig, calibrate
from calib.modulated import ModulatedModel, modulate
from calib.noise import noise_batch
from calib.plan import LayerPlan, Mode, Plan, PlanRow, PointPlan, Reuse
from calib.planner.exponents import exponents_under
from calib.samplers import Sampler, build_sampler
from calib.sampling import sample, start_generation

STEPS = 1000
REFRESH_EVERY, RESIDUAL_EVERY = 3, 9


class Block(nn.Module):
    """A residual branch that a reuse point can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.narrow(functional.silu(self.wide(x)))
        return out


class Small(nn.Module):
    """Predicts the noise of 1 x 6 x 6 images."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.block, self.last = nn.Conv2d(1, 6, 3, padding=1), Block(), nn.Conv2d(6, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        high = functional.silu(self.first(x)) + t[:, None, None, None] / 1000
        out: torch.Tensor = self.last(high + self.block(high))
        return out


Case = tuple[PretrainedModel, Sampler, Calibration]


@pytest.fixture(scope="module")
def case() -> Case:
    torch.manual_seed(4)
    model = adapt(Small(), sample_shape=(1, 6, 6))
    sampler = build_sampler("ddim", STEPS, model.schedule)
    config = CalibrationConfig(seeds=4, batch=4, residual_every=RESIDUAL_EVERY)
    return model, sampler, calibrate(model, sampler, config)


def reusing(model: PretrainedModel, sampler: Sampler, calibration: Calibration) -> Plan:
    """The block runs at every third step and is held or extrapolated between, with the exponents of the planner."""
    plan = calibration.plan
    reuse = [Reuse.REFRESH, Reuse.EXTRAPOLATE, Reuse.HOLD]
    points = {"net.block": PointPlan(tuple(reuse[i % REFRESH_EVERY] for i in range(plan.steps)))}
    live = {name: range(0, STEPS, REFRESH_EVERY if ".block." in name else 1) for name in plan.layers}
    exponents = exponents_under(model, sampler, calibration, points, live, seeds=calibration.config.observed_seeds)

    def row(name: str, i: int) -> PlanRow:
        main = (exponents[name][i],) if i in live[name] else ()
        return PlanRow(main, plan.layers[name].anchor.residual_exponents if i % RESIDUAL_EVERY == 0 else ())

    layers = {
        name: LayerPlan(Mode.DELTA, tuple(row(name, i) for i in range(STEPS)), layer.anchor)
        for name, layer in plan.layers.items()
    }
    return Plan(plan.steps, layers, points)


class Compared:
    """The modulated model, and what quantization adds to its output on its own way."""

    def __init__(self, modulated: ModulatedModel, exact: nn.Module) -> None:
        self.modulated, self.exact = modulated, exact
        self.errors: list[float] = []

    def reset(self) -> None:
        self.modulated.reset()

    def set_step(self, i: int) -> None:
        self.modulated.set_step(i)

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.modulated(x, t)
        self.errors.append(float((out - self.exact(x, t)).square().mean()))
        return out


def watch_inputs(modulated: ModulatedModel) -> dict[str, torch.Tensor]:
    """The newest input of each layer, as the model runs."""
    inputs: dict[str, torch.Tensor] = {}

    def watch(name: str, layer: nn.Module) -> None:
        layer.register_forward_pre_hook(lambda _, given: inputs.update({name: given[0]}))

    for name, layer in modulated.layers.items():
        watch(name, layer)
    return inputs


@pytest.mark.parametrize("planned", [False, True])
def test_a_thousand_steps_leave_no_drift(case: Case, planned: bool) -> None:
    model, sampler, calibration = case
    if planned:
        calibration = dataclasses.replace(calibration, plan=reusing(model, sampler, calibration))
    modulated = modulate(model, calibration)
    inputs = watch_inputs(modulated)
    compared = Compared(modulated, model.denoiser)
    sample(compared, sampler, start_generation(sampler, noise_batch([3, 4], model.sample_shape)))
    for name, layer in modulated.layers.items():
        state = layer.state
        assert state is not None
        assert len(state.lattice) == 2
        for plane, lattice, accumulator in zip(layer.arithmetic.planes, state.lattice, state.accumulator, strict=True):
            wanted = layer.operator(lattice.double(), plane.weight.double())  # exact: far below 2^53
            assert torch.equal(accumulator.double(), wanted), f"I2 of {name}"
        assert layer.counts.saturated == 0, name
        last = next(row for row in reversed(layer.plan.rows) if row.exponents)
        step = float(layer.weights.step)
        apart = float((inputs[name] - step * state.lattice[0].float()).abs().max())
        assert apart <= step * 2.0 ** (last.exponents[-1] - 1) * (1 + 1e-3), f"I1 of {name}"
    assert len(compared.errors) == STEPS
    early, late = (sum(part) / len(part) for part in (compared.errors[50:350], compared.errors[-300:]))
    assert 0 < late <= 2 * early
