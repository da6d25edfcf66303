"""A whole evaluation of the tiny model, its files, and the command line around it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from calib.__main__ import main
from calib.calibration import CalibrationConfig, calibrate
from calib.errors import CalibrationError
from calib.evaluate import Evaluation, EvaluationConfig, evaluate
from calib.evaluate.real import demo_images, folder_images
from calib.evaluate.run import check_disjoint
from calib.evaluate.tables import quality_tables
from calib.models import load_model
from calib.report import render_report
from calib.report.findings import best_rival, findings
from calib.report.maps import Map, scaled
from calib.samplers import build_sampler
from calib.sampling import to_pixels

if TYPE_CHECKING:
    from pathlib import Path

    from calib.adapters import PretrainedModel

CONFIG = EvaluationConfig(seeds=2, widths=(8, 4), reference_steps=8, weight_methods=False, distances=False)
STEPS = 4


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> PretrainedModel:
    loaded = load_model(tiny_model_folder)
    # Random weights make a wild sampler, in which any error grows; a weaker output tames it.
    loaded.denoiser.unet.conv_out.weight.mul_(0.05)
    return loaded


@pytest.fixture(scope="module")
def evaluated(
    model: PretrainedModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Evaluation, dict[str, torch.Tensor], Path]:
    sampler = build_sampler("ddim", STEPS, model.schedule)
    settings = CalibrationConfig(seeds=2, residual_every=1, exact_share=0)
    plan = calibrate(model, build_sampler("dpmpp2m", 3, model.schedule), dataclasses.replace(settings, first_seed=9))
    kept = tmp_path_factory.mktemp("images")
    result, images = evaluate(
        model, sampler, CONFIG, calibration=settings, plans=[("plan small", plan)], keep=kept, command="python -m calib"
    )
    return result, images, kept


def test_the_table_ranks_the_ways(evaluated: tuple[Evaluation, dict[str, torch.Tensor], Path]) -> None:
    result, images, _ = evaluated
    rows = {row.name: row for row in result.rows}
    assert rows["FP32"].psnr.mean == float("inf")
    assert rows["FP32"].same_pixels.mean == rows["FP32"].ssim.mean == 1
    for row in result.rows:
        assert row.psnr_min <= row.psnr_median
        assert row.psnr.low <= row.psnr.mean <= row.psnr.high
        assert images[row.name].shape == (2, 1, 16, 16)
    full, plain = rows["modulated A8 + residual plane"], rows["modulated A8"]
    assert full.psnr.mean > rows["static A8, min-max"].psnr.mean + 3
    assert plain.psnr.mean > rows["modulated A4"].psnr.mean > rows["dynamic A4"].psnr.mean
    assert rows["modulated A4"].psnr.mean > rows["modulated A4, no compensation"].psnr.mean
    assert full.same_pixels.mean > rows["static A4, MSE"].same_pixels.mean
    assert full.within_one.mean >= full.same_pixels.mean
    assert full.saturated is not None
    assert 0 <= full.saturated < 0.01
    # The anchor's second pass at one of four steps, and a residual pass at each.
    assert plain.passes == pytest.approx(5 / 4)
    assert full.residual_passes == pytest.approx(1)
    assert 9 - 0.1 < full.full_steps <= 9
    assert (rows["plan small"].sampler, rows["plan small"].steps) == ("dpmpp2m", 3)
    rivals = {(row.sampler, row.steps) for row in result.rows if row.group == "fewer steps"}
    assert {("ddim", 9), ("dpmpp2m", 9), ("ddim", 2)} <= rivals


def test_findings_name_the_best_rival_that_costs_no_more(
    evaluated: tuple[Evaluation, dict[str, torch.Tensor], Path],
) -> None:
    result, _, _ = evaluated
    plan = result.row("plan small")
    rival = best_rival(plan, result)
    assert rival is not None
    assert rival.full_steps <= plan.full_steps + 0.5
    cheaper = [row for row in result.rows if row.group == "fewer steps" and row.full_steps <= plan.full_steps + 0.5]
    assert rival.psnr_reference.mean == max(row.psnr_reference.mean for row in cheaper)
    claims = [finding.claim for finding in findings(result)]
    assert any(claim.startswith("plan small") for claim in claims)
    assert any("4-bit" in claim for claim in claims)


def test_a_plan_that_spends_more_than_its_steps_is_judged_by_its_quality(
    evaluated: tuple[Evaluation, dict[str, torch.Tensor], Path],
) -> None:
    result, _, _ = evaluated
    plan = result.row("plan small")
    dear = dataclasses.replace(plan, full_steps=plan.steps + 0.5)
    rows = tuple(dear if row is plan else row for row in result.rows)
    (claim,) = (
        each.claim for each in findings(dataclasses.replace(result, rows=rows)) if each.claim.startswith("plan small")
    )
    assert "at least 62 dB to FP32" in claim


def test_a_stopped_evaluation_goes_on_where_it_was(
    model: PretrainedModel, evaluated: tuple[Evaluation, dict[str, torch.Tensor], Path]
) -> None:
    result, images, kept = evaluated
    sampler = build_sampler("ddim", STEPS, model.schedule)
    settings = CalibrationConfig(seeds=2, residual_every=1, exact_share=0)
    ran: list[str] = []
    again, same = evaluate(
        model, sampler, CONFIG, calibration=settings, keep=kept, progress=lambda name, *_: ran.append(name)
    )
    assert not {name for name in ran if "observing" not in name}
    assert again.row("modulated A4") == result.row("modulated A4")
    assert torch.equal(same["modulated A4"], images["modulated A4"])
    for victim in kept.glob("*.safetensors"):
        victim.write_bytes(b"short")
    with pytest.raises(CalibrationError, match="damaged"):
        evaluate(model, sampler, CONFIG, calibration=settings, keep=kept)


def test_the_result_and_its_report_come_from_the_file(
    evaluated: tuple[Evaluation, dict[str, torch.Tensor], Path], tmp_path: Path
) -> None:
    result, images, _ = evaluated
    text = result.to_json()
    assert Evaluation.from_json(text) == result
    assert json.loads(text)["rows"][0]["psnr"]["mean"] is None
    for change in ({"format": 9}, {"rows": [{}]}, {"colour": 1}):
        with pytest.raises(CalibrationError):
            Evaluation.from_json(json.dumps(json.loads(text) | change))
    stability = tmp_path / "stability.json"
    layer = {"name": "unet.conv_in", "verdict": "delta", "relative_change": [1, 0.1], "lattice_bits": [14, 9]}
    layer |= {"zero": [0, 0.5], "saturated": [0, 0], "sensitivity": [1e-3, None]}
    report = {"model": result.model, "sampler": result.sampler, "steps": result.steps, "pays": True}
    report |= {"reasons": ["it <b>does"], "layers": [layer]}
    pictures = {name: to_pixels(some) for name, some in images.items()}
    stability.write_text(json.dumps(report))
    page = render_report(result, pictures, stability)
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert "it &lt;b&gt;does" in page
    assert page.count("<svg") >= 4
    assert page.count("data:image/png;base64") >= 10
    for table in quality_tables(result):
        assert table.title.replace("'", "&#39;") in page
    for text, message in (("{}", "no stability report"), (json.dumps(report | {"steps": 7}), "7 steps, not about")):
        stability.write_text(text)
        with pytest.raises(CalibrationError, match=message):
            render_report(result, pictures, stability)


@pytest.mark.parametrize("logarithmic", [True, False])
def test_a_map_shows_what_is_far_below_the_largest_value_and_what_is_missing(logarithmic: bool) -> None:
    chosen = Map("sensitivity", "", logarithmic=logarithmic)
    rows = [[0.0, 1e-9, 3e-8], [None, 1e-7, 1e-6]]
    values, norm = scaled(chosen, rows)
    assert values.mask.tolist() == [[logarithmic, False, False], [True, False, False]]
    shades = norm(values).compressed()
    assert shades.min() == 0.0
    assert shades.max() == pytest.approx(1.0, abs=1e-3)
    if logarithmic:
        assert len(set(shades)) == 4


def test_evaluation_seeds_may_not_reach_those_that_anything_was_chosen_on() -> None:
    settings = CalibrationConfig(first_seed=10)
    check_disjoint(EvaluationConfig(seeds=10), [("the calibration", settings)])
    for config in (EvaluationConfig(seeds=11), EvaluationConfig(seeds=1, first_seed=5000)):
        with pytest.raises(CalibrationError, match="seed"):
            check_disjoint(config, [("the calibration", settings)])


@pytest.mark.parametrize(
    "setting", [{"seeds": 0}, {"widths": (6, 4)}, {"widths": (8, 1)}, {"reference_steps": 1}, {"first_seed": -1}]
)
def test_settings_out_of_range_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(CalibrationError, match=next(iter(setting))):
        EvaluationConfig(**setting)


def test_a_calibration_of_something_else_is_refused(model: PretrainedModel) -> None:
    calibration = calibrate(model, build_sampler("ddim", 2, model.schedule), CalibrationConfig(seeds=2))
    other = dataclasses.replace(model, content_hash="0")
    with pytest.raises(CalibrationError, match="2 evaluations"):
        evaluate(model, build_sampler("ddim", 3, model.schedule), CONFIG, calibration=calibration)
    with pytest.raises(CalibrationError, match="dpmpp2m"):
        evaluate(model, build_sampler("dpmpp2m", 2, model.schedule), CONFIG, calibration=calibration)
    with pytest.raises(CalibrationError, match="model"):
        evaluate(other, build_sampler("ddim", 2, model.schedule), CONFIG, calibration=calibration)


def test_real_images_are_the_held_out_crops_or_a_folder(tmp_path: Path) -> None:
    crops = demo_images(3, (1, 64, 64))
    assert crops is not None
    assert crops.shape == (3, 1, 64, 64)
    assert demo_images(3, (3, 64, 64)) is None
    for k, size in enumerate([(40, 20), (16, 16)]):
        Image.new("RGB", size, (255, 0, 100)).save(tmp_path / f"{k}.png")
    found = folder_images(tmp_path, 9, (3, 8, 8))
    assert found.shape == (2, 3, 8, 8)
    assert found[:, 0].eq(1).all()
    assert found[:, 1].eq(-1).all()
    (tmp_path / "0.png").unlink()
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CalibrationError):
            folder_images(folder, 9, (3, 8, 8))


def run_calib(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "calib", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=240,
    )


def test_the_command_line_calibrates_evaluates_and_reports(tiny_model_folder: Path, tmp_path: Path) -> None:
    common = ("--model", str(tiny_model_folder), "--steps", "3")
    stored, out = tmp_path / "c", tmp_path / "out"
    made = run_calib("calibrate", *common, "--out", str(stored), "--calibration-seeds", "2", "--rounding", "gptq")
    assert made.returncode == 0, made.stderr
    assert "layers modulated" in made.stderr
    few = ("--seeds", "1", "--widths", "8", "--no-weight-methods", "--no-distances", "--reference-steps", "4")
    done = run_calib("evaluate", *common, *few, "--calibration", str(stored), "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    result = Evaluation.from_json(done.stdout)
    assert result.row("modulated A8 + residual plane").psnr.mean > 30
    assert "--no-weight-methods" in result.command
    first = (out / "report.html").read_text()
    (out / "report.html").unlink()
    again = run_calib("report", str(out))
    assert again.returncode == 0, again.stderr
    assert (out / "report.html").read_text() == first


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("evaluate", "--model", "/nowhere"), 4, "no such folder"),
        (("evaluate", "--sampler", "guess"), 5, "guess"),
        (("evaluate", "--widths", "8,x"), 5, "8,x"),
        (("calibrate", "--out", "x", "--rounding", "up"), 5, "up"),
        (("evaluate", "--colour"), 2, "colour"),
        (("report", "/nowhere"), 5, "no evaluation"),
    ],
)
def test_errors_end_in_their_exit_codes(
    *,
    tiny_model_folder: Path,
    arguments: tuple[str, ...],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = () if "--model" in arguments or "report" in arguments else ("--model", str(tiny_model_folder))
    monkeypatch.setattr(sys, "argv", ["calib", *arguments, *model])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert said in capsys.readouterr().err
