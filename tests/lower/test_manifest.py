"""From a lowered program to a bundle that reads back."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import edge
from boards import load_board
from calib.calibration import CalibrationConfig, calibrate
from calib.plan import LayerPlan, Mode, Plan, PlanRow
from edge.bundle import ENGINE_BYTES, KIT_VERSION, Contents, check_fits, pack_bundle, read_bundle, verify_bundle
from edge.lower.export import LoweredProgram
from edge.lower.golden import golden_test
from edge.lower.manifest import EXECUTORCH_VERSION, describe, summarize

if TYPE_CHECKING:
    from tests.lower.conftest import Case


def test_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((Path(edge.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == KIT_VERSION
    assert f"executorch=={EXECUTORCH_VERSION}" in project["dependencies"]


def test_summary_counts_a_whole_job() -> None:
    anchor = PlanRow((5, 0), (5,))
    delta = LayerPlan(Mode.DELTA, (PlanRow((1,)), PlanRow((1,)), PlanRow(())), anchor)
    direct = LayerPlan(Mode.DIRECT, (PlanRow((5,)),) * 3, PlanRow((5,)))
    assert summarize(Plan(3, {"a": delta, "b": direct})) == {
        "layers": 2,
        "direct_layers": 1,
        "residual_layers": 1,
        "passes": 2 + 1 + 3,
        "residual_passes": 1,
        "reused_steps": 1,
    }


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
