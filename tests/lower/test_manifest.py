"""From a lowered program to a bundle that reads back, with the reference's own golden output."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

import edge
from boards import load_board
from calib.calibration import CalibrationConfig, calibrate
from calib.noise import noise
from calib.plan import LayerPlan, Mode, Plan, PlanRow
from calib.samplers import History
from edge.bundle import ENGINE_BYTES, KIT_VERSION, Contents, check_fits, pack_bundle, read_bundle, verify_bundle
from edge.lower.export import LoweredProgram
from edge.lower.manifest import EXECUTORCH_VERSION, describe, golden_test, summarize
from edge.tolerance import LEAST_DB, MARGIN_DB, WANTED_DB, least_agreement

if TYPE_CHECKING:
    from tests.lower.conftest import Case


def test_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((Path(edge.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == KIT_VERSION
    assert f"executorch=={EXECUTORCH_VERSION}" in project["dependencies"]


def test_summary_counts_a_whole_job() -> None:
    anchor = PlanRow((5, 0), (5,))
    delta = LayerPlan(Mode.DELTA, (PlanRow((1,)), PlanRow((1,)), PlanRow(())), anchor)
    direct = LayerPlan(Mode.DIRECT, (PlanRow((5,)),) * 3, anchor)
    assert summarize(Plan(3, {"a": delta, "b": direct})) == {
        "layers": 2,
        "direct_layers": 1,
        "residual_layers": 2,
        "passes": 2 + 1 + 3,
        "residual_passes": 1,
        "reused_steps": 1,
    }


def test_golden_output_is_the_references_last_steps(odd_case: Case) -> None:
    shape = odd_case.model.sample_shape
    golden, data = golden_test(9, odd_case.model, odd_case.modulated, odd_case.sampler)
    assert (golden.start, golden.image) == (3, "zeros")
    assert LEAST_DB <= golden.min_psnr_db <= WANTED_DB
    alpha_sigma = odd_case.sampler.start_coefficients[3]
    x = alpha_sigma[1] * torch.from_numpy(noise(9, shape))[None]
    before = History.empty(x)
    odd_case.modulated.reset()
    for i in range(3, 6):
        odd_case.modulated.set_step(i)
        out = odd_case.modulated(x, odd_case.sampler.timesteps[i])
        x, before = odd_case.sampler.advance(i, x, out, before, first=i == 3)
    assert np.array_equal(np.frombuffer(data, "<f4").reshape(x.shape), x.numpy())


def test_a_noisier_model_asks_less_of_its_board() -> None:
    assert least_agreement(float("inf")) == least_agreement(90) == WANTED_DB
    assert least_agreement(55) == 55 - MARGIN_DB
    assert least_agreement(10) == LEAST_DB


def test_description_becomes_a_bundle(odd_case: Case, tmp_path: Path) -> None:
    board, shape = load_board("rpi5"), odd_case.model.sample_shape
    config = CalibrationConfig(seeds=2, batch=2, residual_every=None)
    calibration = calibrate(odd_case.model, odd_case.sampler, config)
    program = LoweredProgram(b"program", "0" * 64, 6, shape, 5000, 700, ("modiff::linear.out",), 9)
    golden, output = golden_test(0, odd_case.model, odd_case.modulated, odd_case.sampler)
    manifest = describe(program, odd_case.model, calibration, board, golden)
    assert manifest.memory.peak_bytes == ENGINE_BYTES + 7 + 700 + board.slots * 5000
    assert manifest.plan["residual_layers"] == 0
    assert manifest.plan["calibration"] == calibration.content_hash
    engine = tmp_path / "modiff-engine"
    engine.write_bytes(b"engine")
    pack_bundle(tmp_path / "bundle", Contents(manifest, program.data, [engine], output))
    bundle = read_bundle(tmp_path / "bundle")
    verify_bundle(bundle)
    check_fits(bundle.manifest, board)
    assert replace(bundle.manifest, files=()) == manifest
