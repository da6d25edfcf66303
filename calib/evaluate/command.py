"""``python -m calib evaluate`` and ``python -m calib report``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from calib.calibration import CalibrationConfig
from calib.errors import CalibrationError
from calib.evaluate.pictures import read_pictures, write_pictures
from calib.evaluate.result import Evaluation
from calib.evaluate.run import evaluate
from calib.evaluate.suite import EvaluationConfig
from calib.evaluate.tables import to_tables
from calib.options import (
    DEFAULTS,
    BitsOption,
    ModelOption,
    ObservedOption,
    ResidualOption,
    SamplerOption,
    StepsOption,
    bars,
    console,
    every,
    load,
)
from calib.report import write_report
from calib.samplers import build_sampler
from calib.storage import load_calibration

RESULT, PICTURES, REPORT, KEPT = "evaluation.json", "pictures.safetensors", "report.html", "images"
TABLE_WIDTH = 160
"""Columns that the tables need to keep each row on one line, terminal or not."""


def evaluate_command(
    *,
    model: ModelOption = None,
    sampler: SamplerOption = "ddim",
    steps: StepsOption = 50,
    seeds: Annotated[int, typer.Option(help="how many seeds to evaluate")] = EvaluationConfig.seeds,
    first_seed: Annotated[int, typer.Option(help="the first of them")] = EvaluationConfig.first_seed,
    widths: Annotated[str, typer.Option(help="code bits to compare, with commas")] = "8,6,4,3",
    weight_methods: Annotated[bool, typer.Option(help="compare the ways of making weights")] = True,
    distances: Annotated[bool, typer.Option(help="measure feature distances (needs the extra 'evaluate')")] = True,
    reference_steps: Annotated[int, typer.Option(help="steps of the float reference")] = 250,
    real: Annotated[Path | None, typer.Option(help="folder of real images")] = None,
    calibration: Annotated[Path | None, typer.Option(help="stored calibration with the uniform plan")] = None,
    plan: Annotated[list[Path] | None, typer.Option(help="stored calibration with a plan; may be repeated")] = None,
    stability: Annotated[Path | None, typer.Option(help="stability report (JSON) to show")] = None,
    lattice_bits: BitsOption = DEFAULTS.lattice_bits,
    residual_every: ResidualOption = DEFAULTS.residual_every,
    calibration_seeds: ObservedOption = DEFAULTS.seeds,
    out: Annotated[Path | None, typer.Option(help="folder for JSON, report and images; resumable")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="write the result as JSON on stdout")] = False,
) -> None:
    """Compare FP32, static, dynamic and modulated INT8, plans, and fewer FP32 steps on the same noise."""
    try:
        bits = tuple(int(width) for width in widths.split(","))
    except ValueError as error:
        raise CalibrationError(f"widths {widths!r}", mend="give numbers with commas, such as 8,6,4,3") from error
    config = EvaluationConfig(seeds, first_seed, bits, weight_methods, reference_steps, distances, real)
    loaded = load(model)
    settings = CalibrationConfig(
        seeds=calibration_seeds, lattice_bits=lattice_bits, residual_every=every(residual_every)
    )
    with bars() as tell:
        result, images = evaluate(
            loaded,
            build_sampler(sampler, steps, loaded.schedule),
            config,
            calibration=load_calibration(calibration) if calibration is not None else settings,
            plans=[(f"plan {folder.name}", load_calibration(folder)) for folder in plan or ()],
            keep=None if out is None else out / KEPT,
            command=shlex.join(["python", "-m", "calib", *sys.argv[1:]]),
            progress=tell,
        )
    if out is not None:
        _write(out, result, images, stability)
    if json_output:
        sys.stdout.write(result.to_json())
    else:
        for table in to_tables(result):
            Console(width=max(Console().width, TABLE_WIDTH)).print(table)


def report_command(
    *,
    folder: Annotated[Path, typer.Argument(help="what `evaluate --out` wrote")],
    stability: Annotated[Path | None, typer.Option(help="stability report (JSON) to show")] = None,
) -> None:
    """Write the HTML report of an evaluation anew."""
    try:
        text = (folder / RESULT).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise CalibrationError("no evaluation is stored here", where=str(folder), mend="evaluate first") from error
    result = Evaluation.from_json(text, where=str(folder / RESULT))
    write_report(folder / REPORT, result, read_pictures(folder / PICTURES), stability)
    console.print(f"report: {folder / REPORT}")


def _write(out: Path, result: Evaluation, images: dict[str, torch.Tensor], stability: Path | None) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / RESULT).write_text(result.to_json(), encoding="utf-8")
    write_pictures(out / PICTURES, images)
    write_report(out / REPORT, result, read_pictures(out / PICTURES), stability)
    console.print(f"report: {out / REPORT}")
