"""The comparison table and the command line around it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from calib.baselines import StaticInt8Layer, static_int8
from calib.calibration import CalibrationConfig, calibrate
from calib.errors import CalibrationError
from calib.evaluate import Evaluation, evaluate, fewer_steps, psnr
from calib.models import load_model
from calib.samplers import build_sampler

if TYPE_CHECKING:
    from pathlib import Path


def test_psnr_clamps_and_compares_each_image() -> None:
    a = torch.zeros(3, 1, 2, 2)
    b = a.clone()
    b[1] = 0.2
    b[2] = 7.0
    found = psnr(a, b)
    assert found[0] == float("inf")
    torch.testing.assert_close(found[1:], torch.tensor([20.0, 10 * 0.6020599913]).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("layer", [nn.Conv1d(3, 4, 3), nn.Conv2d(3, 4, 3, bias=False), nn.Linear(8, 4)])
def test_static_int8_rounds_inputs_and_weights(layer: nn.Module) -> None:
    shape = {3: (2, 3, 8), 4: (2, 3, 8, 8), 2: (2, 8)}[layer.weight.dim()]
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 3 - 1
    quantized = StaticInt8Layer(layer, -1.0, 2.0)
    with torch.no_grad():
        error = (quantized(x) - layer(x)).abs().max()
        assert 0 < error < 0.05
        # Values outside the observed range are cut to it.
        assert torch.equal(quantized(x * 0 + 50), quantized(x * 0 + 2))
        assert torch.equal(quantized(x * 0 - 50), quantized(x * 0 - 1))


def test_static_int8_replaces_the_named_layers_only() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    quantized = static_int8(model, {"1": (-1.0, 1.0)})
    assert isinstance(quantized[0], nn.Linear)
    assert isinstance(quantized[1], StaticInt8Layer)
    assert isinstance(model[1], nn.Linear)


@pytest.mark.parametrize(
    ("steps", "passes", "expected"), [(50, 1.12, [25, 14]), (4, 4.0, [4, 2]), (1, 1.0, [1]), (8, 2.0, [4])]
)
def test_fewer_steps(steps: int, passes: float, expected: list[int]) -> None:
    assert fewer_steps(steps, passes) == expected


@pytest.fixture(scope="module")
def evaluation(tiny_model_folder: Path) -> Evaluation:
    model = load_model(tiny_model_folder)
    # Random weights make a wild sampler, in which any error grows; a weaker output tames it.
    model.denoiser.unet.conv_out.weight.mul_(0.05)
    sampler = build_sampler("ddim", 6, model.schedule)
    return evaluate(model, sampler, CalibrationConfig(seeds=2, residual_every=1, exact_share=1), seeds=5)


def test_the_table_ranks_the_ways(evaluation: Evaluation) -> None:
    rows = {row.name: row for row in evaluation.rows}
    assert list(rows) == [
        "FP32",
        "FP32, 4 steps",
        "FP32, 3 steps",
        "static INT8 PTQ",
        "modulated INT8",
        "modulated INT8 + residual plane",
    ]
    assert rows["FP32"].psnr_mean == float("inf")
    assert rows["FP32"].same_pixels == 1
    assert all(row.psnr_min <= row.psnr_mean for row in evaluation.rows)
    full, plain = rows["modulated INT8 + residual plane"], rows["modulated INT8"]
    assert full.psnr_mean > plain.psnr_mean + 6 > 6 + rows["FP32, 4 steps"].psnr_mean
    assert full.psnr_mean > rows["static INT8 PTQ"].psnr_mean + 6
    assert full.same_pixels > rows["static INT8 PTQ"].same_pixels
    assert plain.passes == pytest.approx(2)
    assert full.passes == pytest.approx(3)
    assert full.saturated is not None
    assert 0 <= full.saturated < 0.01


def test_evaluation_seeds_may_not_be_calibration_seeds(tiny_model_folder: Path) -> None:
    model = load_model(tiny_model_folder)
    sampler = build_sampler("ddim", 2, model.schedule)
    with pytest.raises(CalibrationError, match="evaluation seeds"):
        evaluate(model, sampler, CalibrationConfig(first_seed=10), seeds=11)


def run_calib(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "calib", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=120,
    )


def test_the_command_line_calibrates_and_evaluates(tiny_model_folder: Path, tmp_path: Path) -> None:
    common = ("--model", str(tiny_model_folder), "--steps", "3")
    stored = tmp_path / "c"
    made = run_calib("calibrate", *common, "--out", str(stored), "--calibration-seeds", "2")
    assert made.returncode == 0, made.stderr
    assert "layers modulated" in made.stderr
    done = run_calib("evaluate", *common, "--seeds", "1", "--calibration", str(stored), "--json")
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert table["rows"][0]["psnr_mean"] is None
    assert table["rows"][-1]["psnr_mean"] > 30


def test_a_calibration_of_something_else_is_refused(tiny_model_folder: Path) -> None:
    model = load_model(tiny_model_folder)
    calibration = calibrate(model, build_sampler("ddim", 2, model.schedule), CalibrationConfig(seeds=2))
    other = dataclasses.replace(model, content_hash="0")
    with pytest.raises(CalibrationError, match="2 steps"):
        evaluate(model, build_sampler("ddim", 3, model.schedule), calibration=calibration)
    with pytest.raises(CalibrationError, match="dpmpp2m"):
        evaluate(model, build_sampler("dpmpp2m", 2, model.schedule), calibration=calibration)
    with pytest.raises(CalibrationError, match="model"):
        evaluate(other, build_sampler("ddim", 2, model.schedule), calibration=calibration)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("evaluate", "--model", "/nowhere"), 4, "no such folder"),
        (("evaluate", "--sampler", "euler"), 5, "euler"),
        (("evaluate", "--colour"), 2, "colour"),
    ],
)
def test_errors_end_in_their_exit_codes(
    tiny_model_folder: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    model = () if "--model" in arguments else ("--model", str(tiny_model_folder))
    done = run_calib(*arguments, *model)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
