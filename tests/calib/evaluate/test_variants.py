"""Narrow codes and forgotten errors: what they change, and that the arithmetic's invariants stay."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch

from calib.calibration import Calibration, CalibrationConfig, assemble
from calib.errors import CalibrationError
from calib.evaluate.cost import float_cost, plan_cost
from calib.evaluate.evidence import Evidence, gather
from calib.evaluate.variants import code_limit, forget_errors, narrow_codes, narrow_plan
from calib.evaluate.ways import without_residual
from calib.lattice import PASS_LIMIT, quantize_change
from calib.models import load_model
from calib.modulated import ModulatedModel, modulate
from calib.noise import noise_batch
from calib.plan import LayerPlan, Mode, Plan, PlanRow
from calib.ranges import Largest
from calib.samplers import Sampler, build_sampler
from calib.sampling import sample

if TYPE_CHECKING:
    from pathlib import Path

    from calib.adapters import PretrainedModel

STEPS = 5


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> PretrainedModel:
    return load_model(tiny_model_folder)


@pytest.fixture(scope="module")
def sampler(model: PretrainedModel) -> Sampler:
    return build_sampler("ddim", STEPS, model.schedule)


@pytest.fixture(scope="module")
def evidence(model: PretrainedModel, sampler: Sampler) -> Evidence:
    return gather(model, sampler, CalibrationConfig(seeds=2), (), lambda *_: None)


@pytest.fixture(scope="module")
def calibration(model: PretrainedModel, sampler: Sampler, evidence: Evidence) -> Calibration:
    config = CalibrationConfig(seeds=2, exact_share=0.05)
    made = assemble(
        model, sampler, config, evidence.observations, float_layers=evidence.float_layers, moments=evidence.moments
    )
    return without_residual(made)


def run(model: PretrainedModel, sampler: Sampler, modulated: ModulatedModel) -> None:
    sample(modulated, sampler, noise_batch([5, 6], model.sample_shape))


@pytest.mark.parametrize(("bits", "limit"), [(8, 127), (6, 31), (4, 7), (3, 3)])
def test_code_limits(bits: int, limit: int) -> None:
    assert code_limit(bits) == limit
    codes, saturated = quantize_change(
        torch.tensor([50.0, -2.0]), torch.zeros(2, dtype=torch.int16), 0, torch.tensor(1.0), 4095, code_limit=limit
    )
    assert codes.tolist() == [min(50, limit), -2]
    assert saturated == (limit < 50)


@pytest.mark.parametrize("bits", [1, 9])
def test_other_widths_are_refused(bits: int) -> None:
    with pytest.raises(CalibrationError, match="bits"):
        code_limit(bits)


def test_narrow_plans_reach_as_far_with_fewer_codes(calibration: Calibration, evidence: Evidence) -> None:
    narrow = narrow_plan(calibration, evidence.changes, Largest(), 4)
    for name, plan in calibration.plan.layers.items():
        for i in range(1, STEPS):
            wide, thin = plan.rows[i].exponents, narrow.plan.layers[name].rows[i].exponents
            assert len(wide) == len(thin)
            if len(wide) == 1:
                assert wide[0] + 4 <= thin[0] + (wide[0] == 0) * 4 <= wide[0] + 5
            else:
                assert thin[1] == max(0, thin[0] - 3)


def test_narrow_codes_keep_the_anchor_and_the_invariants(
    model: PretrainedModel, sampler: Sampler, calibration: Calibration, evidence: Evidence
) -> None:
    modulated = modulate(model, narrow_plan(calibration, evidence.changes, Largest(), 4))
    narrow_codes(modulated, 4)
    layer = next(iter(modulated.layers.values()))
    limits: list[int] = []
    layer.register_forward_hook(lambda one, *_: limits.append(one.arithmetic.code_limit))
    run(model, sampler, modulated)
    assert limits == [PASS_LIMIT, *[7] * (STEPS - 1)]
    for one in modulated.layers.values():
        assert one.state is not None
        assert torch.equal(one.state.accumulator[0], one.arithmetic.planes[0](one.state.lattice[0]))


def test_forgotten_errors_add_up(model: PretrainedModel, sampler: Sampler, calibration: Calibration) -> None:
    apart: dict[bool, float] = {}
    for forgets in (False, True):
        modulated = modulate(model, calibration)
        inputs: dict[str, torch.Tensor] = {}
        for name, layer in modulated.layers.items():
            # Runs before the hook that forgets, and so sees the float input.
            layer.register_forward_pre_hook(lambda _, given, key=name, keep=inputs: keep.update({key: given[0]}))
        if forgets:
            forget_errors(modulated)
        run(model, sampler, modulated)
        errors = []
        for name, layer in modulated.layers.items():
            assert layer.state is not None
            assert torch.equal(layer.state.accumulator[0], layer.arithmetic.planes[0](layer.state.lattice[0]))
            stands_for = layer.state.lattice[0] * layer.weights.step
            unit = float(layer.weights.step) * 2 ** layer.plan.rows[-1].exponents[-1]
            errors.append(float((stands_for - inputs[name]).square().mean()) / unit**2)
        apart[forgets] = sum(errors) / len(errors)
    # A rounding error has a variance of a twelfth of its step; four passes' add up to more.
    assert apart[False] < 1 / 11
    assert apart[True] > 1.5 * apart[False]


def test_costs_count_every_pass_by_its_macs() -> None:
    two = LayerPlan(Mode.DELTA, (PlanRow((3,)), PlanRow((), extrapolates=True)), PlanRow((5, 0), (5,)))
    one = dataclasses.replace(two, rows=(PlanRow((3,)), PlanRow((1,), (5,))))
    cost = plan_cost(Plan(2, {"a": two, "b": one}), {"a": 30, "b": 10, "float": 5})
    # a: 2 + 0 main, 1 residual; b: 2 + 1 main, 2 residual; the float layer runs twice.
    assert cost.passes == pytest.approx((30 * 2 + 10 * 3) / 80)
    assert cost.residual_passes == pytest.approx((30 + 10 * 2) / 80)
    assert cost.full_steps == pytest.approx((90 + 50 + 10) / 45)
    assert float_cost(7).full_steps == 7
