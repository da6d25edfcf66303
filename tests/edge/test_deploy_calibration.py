"""``python -m edge.deploy --calibration``: what the planner has chosen goes to a board, and to its own model only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from calib import load_calibration
from calib.calibration import with_references
from calib.planner import PlannerConfig, plan
from calib.planner.candidate import full_steps, passes_of, planned
from calib.samplers import build_sampler
from calib.sources import read_model
from calib.storage import save_calibration

TIMEOUT = 280
STEPS = 8


@pytest.fixture(scope="module")
def stored(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stored plan at about half of the passes: blocks are reused in it."""
    from calib import CalibrationConfig, calibrate

    model = read_model(str(tiny_model_folder))
    sampler = build_sampler("ddim", STEPS, model.schedule)
    made = calibrate(model, sampler, CalibrationConfig(seeds=2))
    config = PlannerConfig(budgets=(0.6,), sweep_seeds=1, probes=1, verification_seeds=1, reserves=(1.0,))
    chosen = plan(model, sampler, made, config).choose(cost=0.65)
    assert chosen.plan.points
    folder = tmp_path_factory.mktemp("planned")
    save_calibration(planned(made, chosen.plan), folder)
    return folder


def deploy(model: Path, cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge.deploy", "--board", "host", "--virtual", "--model", str(model), *arguments]
    variables = {**os.environ, "EDGE_CACHE": str(cache), "EDGE_KEYS": str(cache / "keys"), "OMP_WAIT_POLICY": "passive"}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def test_the_board_runs_the_stored_plan(
    stored: Path, tiny_model_folder: Path, tmp_path: Path, with_engines: Callable[[Path], Path]
) -> None:
    options = ["--calibration", str(stored), "--steps", str(STEPS), "--generate", "3", "--json"]
    done = deploy(tiny_model_folder, with_engines(tmp_path / "cache"), *options, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    (job,) = json.loads(done.stdout)["jobs"]
    plan = load_calibration(stored).plan
    assert job["passes"] + job["residual_passes"] == sum(sum(passes_of(plan, name)) for name in plan.layers)
    assert job["bit_equal"]
    assert not (tmp_path / "cache" / "calibrations").exists(), "nothing was calibrated"


def test_a_plan_of_another_sampler_is_refused(stored: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    options = ["--calibration", str(stored), "--steps", "9", "--out", str(tmp_path / "out")]
    done = deploy(tiny_model_folder, tmp_path / "cache", *options)
    assert done.returncode == 5, done.stderr
    assert "made for ddim with 8 evaluations, not for ddim with 9" in done.stderr
    assert not (tmp_path / "out").exists()


def test_pictures_given_beside_a_plan_replace_its_own(stored: Path) -> None:
    calibration = load_calibration(stored)
    generator = torch.Generator().manual_seed(2)
    pictures = [torch.rand(12, 1, 16, 16, generator=generator) * 0.2 + shift for shift in (0.0, 0.5)]
    dark, bright = (with_references(calibration, each) for each in pictures)
    assert len({each.content_hash for each in (calibration, dark, bright)}) == 3, "their bundles are different ones"
    assert dark.novelty is not None
    assert bright.novelty is not None
    assert bright.novelty.novelty(pictures[1][0].numpy()) <= 1 < dark.novelty.novelty(pictures[1][0].numpy())
    assert full_steps(dark.plan, dict.fromkeys(dark.plan.layers, 1)) < STEPS
