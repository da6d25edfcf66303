"""The stability report: what it says of a slow run, and of a few-step sampler, where modulation does not pay."""

from __future__ import annotations

import pytest

from calib.calibration import CalibrationConfig, calibrate
from calib.models import load_model
from calib.samplers import build_sampler
from calib.stability import StabilityReport, Verdict, analyze, code_error, exponents_for, psnr_of

STEPS = 12


def report(steps: int) -> StabilityReport:
    model = load_model()
    sampler = build_sampler("ddim", steps, model.schedule)
    calibration = calibrate(model, sampler, CalibrationConfig(seeds=2, batch=2))
    return analyze(model, sampler, calibration, seeds=2, probes=2)


@pytest.fixture(scope="module")
def slow() -> StabilityReport:
    return report(STEPS)


def test_every_layer_has_a_value_a_step(slow: StabilityReport) -> None:
    assert slow.steps == STEPS
    assert len(slow.step_sensitivity) == STEPS
    for layer in slow.layers:
        for row in (layer.relative_change, layer.lattice_bits, layer.saturated, layer.zero, layer.sensitivity):
            assert len(row) == STEPS
        assert layer.relative_change[0] == 1.0
        assert layer.lattice_bits[0] >= max(layer.lattice_bits[1:])
        assert all(0 <= share <= 1 for share in (*layer.saturated, *layer.zero))
        assert layer.macs > 0 < layer.state_bytes
    # The seeds are not the calibration's own.
    assert min(slow.seeds) >= 1_000_002


def test_modulation_pays_over_many_steps(slow: StabilityReport) -> None:
    assert slow.pays
    assert slow.delta_psnr > slow.direct_psnr + 6
    assert any(layer.verdict is not Verdict.DIRECT for layer in slow.layers)


@pytest.mark.parametrize("steps", [2, 4])
def test_few_step_samplers_do_not_pay(steps: int) -> None:
    found = report(steps)
    assert not found.pays
    assert any("anchor" in reason for reason in found.reasons)
    direct = sum(layer.macs for layer in found.layers if layer.verdict is Verdict.DIRECT)
    assert direct > 0.5 * sum(layer.macs for layer in found.layers)


def test_small_numbers() -> None:
    assert psnr_of(4e-6) == pytest.approx(60)
    assert psnr_of(0.0) == float("inf")
    assert code_error(0.5, 2) == pytest.approx(4 / 12)
    assert exponents_for([0.0, 127.0, 127.1, 1e9], 1.0, 6) == [0, 0, 1, 6]
