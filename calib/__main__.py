"""``python -m calib``: calibrate a model, and measure how near its quantized forms come to the original."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from boards.errors import KitError
from calib.calibration import CalibrationConfig, calibrate
from calib.evaluate.command import evaluate_command, report_command
from calib.options import (
    BIASES,
    DEFAULTS,
    RANGES,
    REACHES,
    ROUNDINGS,
    BiasOption,
    BitsOption,
    ModelOption,
    ObservedOption,
    ReachOption,
    ResidualOption,
    RoundingOption,
    SamplerOption,
    StepsOption,
    WeightRangeOption,
    bars,
    choose,
    console,
    every,
    load,
)
from calib.planner.command import plan_command, stability_command
from calib.samplers import build_sampler
from calib.storage import save_calibration
from calib.weights import WeightMethod

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
app.command("evaluate")(evaluate_command)
app.command("report")(report_command)
app.command("plan")(plan_command)
app.command("stability")(stability_command)


@app.command("calibrate")
def calibrate_command(
    *,
    out: Annotated[Path, typer.Option(help="folder to write the calibration to")],
    model: ModelOption = None,
    sampler: SamplerOption = "ddim",
    steps: StepsOption = 50,
    lattice_bits: BitsOption = DEFAULTS.lattice_bits,
    residual_every: ResidualOption = DEFAULTS.residual_every,
    calibration_seeds: ObservedOption = DEFAULTS.seeds,
    weight_range: WeightRangeOption = "max",
    rounding: RoundingOption = "nearest",
    bias: BiasOption = "keep",
    reach: ReachOption = "largest",
) -> None:
    """Calibrate a model for a sampler and store the result."""
    loaded = load(model)
    config = CalibrationConfig(
        seeds=calibration_seeds,
        lattice_bits=lattice_bits,
        residual_every=every(residual_every),
        weights=WeightMethod(
            choose("--weight-range", weight_range, RANGES),
            choose("--rounding", rounding, ROUNDINGS),
            choose("--bias", bias, BIASES),
        ),
        changes=choose("--reach", reach, REACHES),
    )
    with bars() as tell:
        result = calibrate(
            loaded,
            build_sampler(sampler, steps, loaded.schedule),
            config,
            lambda done, total: tell("calibration", done, total),
        )
    save_calibration(result, out)
    console.print(f"{len(result.layers)} layers modulated, {len(result.float_layers)} left in floating point: {out}")


def main() -> None:
    """Run the command line; an error of the kit ends in its own exit code."""
    try:
        app()
    except KitError as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
