"""Buying passes and giving up state, with gains made by hand."""

from __future__ import annotations

import pytest
import torch

from calib.adjoint import LayerSweep
from calib.plan import Mode, PlanRow
from calib.planner.passes import LayerPasses, buy_passes, fit_state
from calib.weights import LayerWeights

STEPS = 6


def layer(gain: list[float], *, live: list[int] | None = None, drift: float = 0.01, price: float = 0.5) -> LayerPasses:
    """A 4x4 linear layer on 10 positions: 40 inputs and outputs, lattice step 1e-3, 14 bits."""
    samples = torch.ones(STEPS, 8) + drift * torch.arange(STEPS)[:, None]
    gains = torch.tensor(gain, dtype=torch.float64)
    seen = LayerSweep(160, 40, 40, gains, gains.clone(), torch.zeros(STEPS, dtype=torch.float64), samples)
    residual = torch.full((4, 4), 60, dtype=torch.int8)
    weights = LayerWeights(residual, residual, torch.full((4,), 0.01), torch.zeros(4), torch.tensor(1e-3), 14)
    return LayerPasses(seen, weights, [6, 2, 2, 2, 2, 2], live if live is not None else list(range(STEPS)), price)


def test_a_plan_without_purchases_does_one_pass_at_live_steps() -> None:
    plan = layer([1.0] * STEPS, live=[0, 2, 5]).plan()
    assert plan.mode is Mode.DELTA
    assert plan.anchor == plan.rows[0] == PlanRow((6,))
    assert plan.rows[1:] == (PlanRow(()), PlanRow((2,)), PlanRow(()), PlanRow(()), PlanRow((2,)))


def test_the_first_purchases_are_the_residual_plane_and_the_anchors_second_pass() -> None:
    bought = {"a": layer([1.0] * STEPS)}
    before = bought["a"].error()
    assert buy_passes(bought, 1.0, 0.0) == pytest.approx(1.0)
    assert bought["a"].residual == {0}
    assert bought["a"].twice == {0}
    assert bought["a"].plan().anchor == PlanRow((6, 0), (6,))
    assert bought["a"].error() < before / 50
    assert bought["a"].passes == STEPS + 2


def test_passes_go_to_the_layer_and_step_where_errors_reach_the_image() -> None:
    quiet, loud = [1e-9] * STEPS, [1e-9, 1e-9, 1e-9, 1.0, 1e-9, 1e-9]
    layers = {"quiet": layer(quiet), "loud": layer(loud)}
    buy_passes(layers, 2.0, 0.0)
    assert not layers["quiet"].residual | layers["quiet"].twice
    assert 3 in layers["loud"].twice | layers["loud"].residual


def test_nothing_is_bought_beyond_the_budget_or_under_the_floor() -> None:
    assert buy_passes({"a": layer([1.0] * STEPS)}, 0.4, 0.0) == 0
    assert buy_passes({"a": layer([1e-9] * STEPS)}, 9.0, 1.0) == 0


def test_state_is_given_up_where_it_matters_least() -> None:
    layers = {"quiet": layer([1e-6] * STEPS), "loud": layer([1.0] * STEPS)}
    for each in layers.values():
        each.residual = {0}
    full = sum(each.state_bytes for each in layers.values())
    assert full == 4 * (2 * 40 + 4 * 40)
    assert fit_state(layers, full)
    assert fit_state(layers, full - 1)
    assert (layers["quiet"].residual, layers["loud"].residual) == (set(), {0})
    assert fit_state(layers, full // 2)
    assert layers["quiet"].mode is Mode.DIRECT
    assert layers["loud"].mode is Mode.DELTA
    assert [row.exponents for row in layers["quiet"].plan().rows] == [(6,)] * STEPS
    assert fit_state(layers, 0)
    assert not fit_state(layers, -1)
