"""``python -m calib``: calibrate a model, or measure how near its modulated form comes to the original."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from boards.errors import KitError
from calib.calibration import CalibrationConfig, calibrate
from calib.evaluate import Evaluation, Row, Tell, evaluate
from calib.models import PretrainedModel, load_model
from calib.samplers import build_sampler
from calib.storage import load_calibration, save_calibration

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
console = Console(stderr=True)

TABLE_WIDTH = 100
"""Columns that the table needs to keep each row on one line, terminal or not."""

ModelOption = Annotated[Path | None, typer.Option("--model", help="diffusers folder; the demo model where not given")]
SamplerOption = Annotated[str, typer.Option("--sampler", help="ddim or dpmpp2m")]
StepsOption = Annotated[int, typer.Option("--steps", help="sampler steps")]
BitsOption = Annotated[int, typer.Option("--lattice-bits", help="bits of the input lattice, 8..16")]
ResidualOption = Annotated[
    int | None, typer.Option("--residual-every", help="steps between residual passes; 0: at step 0 only")
]
ObservedOption = Annotated[int, typer.Option("--calibration-seeds", help="seeds that calibration observes")]


@app.command("evaluate")
def evaluate_command(
    *,
    model: ModelOption = None,
    sampler: SamplerOption = "ddim",
    steps: StepsOption = 50,
    seeds: Annotated[int, typer.Option(help="evaluation seeds: 0, 1, ...")] = 16,
    lattice_bits: BitsOption = CalibrationConfig.lattice_bits,
    residual_every: ResidualOption = CalibrationConfig.residual_every,
    calibration_seeds: ObservedOption = CalibrationConfig.seeds,
    calibration: Annotated[Path | None, typer.Option(help="stored calibration to use instead of a new one")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="write the table as JSON on stdout")] = False,
) -> None:
    """Compare FP32, fewer FP32 steps, static INT8 and modulated INT8 on the same noise."""
    loaded = _load(model)
    config = CalibrationConfig(seeds=calibration_seeds, lattice_bits=lattice_bits, residual_every=residual_every)
    stored = load_calibration(calibration) if calibration is not None else None
    with _bars() as tell:
        result = evaluate(
            loaded,
            build_sampler(sampler, steps, loaded.schedule),
            config,
            seeds=seeds,
            calibration=stored,
            progress=tell,
        )
    if json_output:
        sys.stdout.write(to_json(result) + "\n")
    else:
        Console(width=max(Console().width, TABLE_WIDTH)).print(to_table(result))


@app.command("calibrate")
def calibrate_command(
    *,
    out: Annotated[Path, typer.Option(help="folder to write the calibration to")],
    model: ModelOption = None,
    sampler: SamplerOption = "ddim",
    steps: StepsOption = 50,
    lattice_bits: BitsOption = CalibrationConfig.lattice_bits,
    residual_every: ResidualOption = CalibrationConfig.residual_every,
    calibration_seeds: ObservedOption = CalibrationConfig.seeds,
) -> None:
    """Calibrate a model for a sampler and store the result."""
    loaded = _load(model)
    config = CalibrationConfig(seeds=calibration_seeds, lattice_bits=lattice_bits, residual_every=residual_every)
    with _bars() as tell:
        result = calibrate(
            loaded,
            build_sampler(sampler, steps, loaded.schedule),
            config,
            lambda done, total: tell("calibration", done, total),
        )
    save_calibration(result, out)
    console.print(f"{len(result.layers)} layers modulated, {len(result.float_layers)} left in floating point: {out}")


def to_json(result: Evaluation) -> str:
    """The evaluation as JSON; an infinite PSNR is null."""
    document = dataclasses.asdict(result)
    for row in document["rows"]:
        for key in ("psnr_mean", "psnr_min"):
            row[key] = row[key] if math.isfinite(row[key]) else None
    return json.dumps(document, indent=1)


def to_table(result: Evaluation) -> Table:
    """The evaluation for a person."""
    title = f"{result.model}, {result.sampler}, {result.seeds} seeds: PSNR against FP32 at the same steps"
    table = Table(title=title, title_justify="left")
    table.add_column("way")
    for heading in ("steps", "mean dB", "worst dB", "equal pixels", "passes/step", "saturated"):
        table.add_column(heading, justify="right")
    for row in result.rows:
        table.add_row(row.name, str(row.steps), *_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    def decibels(value: float) -> str:
        return f"{value:.1f}" if math.isfinite(value) else "same"

    passes = "" if row.passes is None else f"{row.passes:.2f}"
    saturated = "" if row.saturated is None else f"{row.saturated:.5%}"
    return [decibels(row.psnr_mean), decibels(row.psnr_min), f"{row.same_pixels:.1%}", passes, saturated]


def _load(model: Path | None) -> PretrainedModel:
    loaded = load_model(model)
    for note in loaded.notes:
        console.print(f"note: {note}")
    return loaded


@contextmanager
def _bars() -> Iterator[Tell]:
    """Progress bars on stderr, one for each thing that runs."""
    with Progress(console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield tell


def main() -> None:
    """Run the command line; an error of the kit ends in its own exit code."""
    try:
        app()
    except KitError as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
