"""The fit finds the coefficients that made the numbers, and the check notices when they are others."""

from __future__ import annotations

import dataclasses
import random

import pytest

from boards import Cost
from tests.bench.cost import Sample, check, fit, require
from tests.bench.instructions import BenchError

TRUTH = Cost(per_mac=0.08, per_input=2.5, per_prologue=8.0, per_output=1.5, per_call=3000.0)


def _samples(cost: Cost, seed: int, noise: float = 0.0) -> list[Sample]:
    draw = random.Random(seed)
    samples = []
    for index in range(60):
        inputs, outputs = draw.randrange(500, 200_000), draw.randrange(500, 200_000)
        macs, passes = outputs * draw.choice([16, 128, 1152, 4608]), draw.choice([1, 2])
        prologue = draw.random() < 0.7
        exact = cost.layer(macs, inputs, outputs, passes, prologue=prologue)
        instructions = round(exact * (1 + noise * draw.uniform(-1, 1)))
        samples.append(Sample(str(index), macs, inputs, outputs, passes, prologue, instructions))
    return samples


def test_the_fit_recovers_what_made_the_numbers() -> None:
    found = fit(_samples(TRUTH, 1))
    for name in ("per_mac", "per_input", "per_prologue", "per_output", "per_call"):
        assert getattr(found, name) == pytest.approx(getattr(TRUTH, name), rel=1e-3)


def test_noise_moves_predictions_less_than_itself() -> None:
    found = check(fit(_samples(TRUTH, 1, noise=0.08)), _samples(TRUTH, 2))
    assert found.worst < 0.08
    assert found.within == 1.0


def test_a_part_that_costs_nothing_is_not_made_negative() -> None:
    free = Cost(per_mac=0.08, per_input=0.0, per_prologue=0.0, per_output=0.0, per_call=2000.0)
    found = fit(_samples(free, 3, noise=0.05))
    assert min(dataclasses.astuple(found)) >= 0


def test_the_check_tells_of_wrong_coefficients() -> None:
    wrong = dataclasses.replace(TRUTH, per_mac=0.12)
    found = check(wrong, _samples(TRUTH, 2))
    assert found.worst > 0.2
    assert found.total > 0.2
    assert found.within < 1.0


def test_a_cost_that_predicts_badly_is_refused() -> None:
    require(check(TRUTH, _samples(TRUTH, 2, noise=0.05)), "rpi5")
    for factor in (0.85, 1.15):
        off = Cost(*(factor * value for value in dataclasses.astuple(TRUTH)))
        with pytest.raises(BenchError, match="fit --board rpi5"):
            require(check(off, _samples(TRUTH, 2)), "rpi5")
    # The sum may be right while single layers are not: half too dear, half too cheap.
    mixed = [*_samples(TRUTH, 2), *_samples(Cost(*(1.5 * v for v in dataclasses.astuple(TRUTH))), 4)]
    with pytest.raises(BenchError, match="of 120 layers"):
        require(check(TRUTH, mixed), "rpi5")
