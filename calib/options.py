"""What the commands of ``python -m calib`` share: options, loading, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from calib.adapters import PretrainedModel
from calib.calibration import CalibrationConfig
from calib.errors import CalibrationError
from calib.ranges import Largest, LeastSquares, Percentile, RangeMethod
from calib.sources import read_model
from calib.weights import CorrectBias, Gptq, KeepBias, MaxRange, MseRange, RoundToNearest

console = Console(stderr=True)

Tell = Callable[[str, int, int], None]
"""``(what is running, steps done, steps in all)``."""

ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="diffusers folder, or FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION; default: demo"),
]
SamplerOption = Annotated[str, typer.Option("--sampler", help="ddim, ddpm, dpmpp2m, euler, heun or flow-euler")]
StepsOption = Annotated[int, typer.Option("--steps", help="sampler steps")]
BitsOption = Annotated[int, typer.Option("--lattice-bits", help="bits of the input lattice, 8..16")]
ResidualOption = Annotated[
    int | None, typer.Option("--residual-every", help="steps between residual passes; 0: at step 0 only; -1: none")
]
ObservedOption = Annotated[int, typer.Option("--calibration-seeds", help="seeds that calibration observes")]
DEFAULTS = CalibrationConfig()
NEVER = -1

RANGES: dict[str, MaxRange | MseRange] = {"max": MaxRange(), "mse": MseRange()}
ROUNDINGS: dict[str, RoundToNearest | Gptq] = {"nearest": RoundToNearest(), "gptq": Gptq()}
BIASES: dict[str, KeepBias | CorrectBias] = {"keep": KeepBias(), "correct": CorrectBias()}
REACHES: dict[str, RangeMethod] = {"largest": Largest(), "percentile": Percentile(), "mse": LeastSquares()}

WeightRangeOption = Annotated[str, typer.Option("--weight-range", help="of a channel's weights: max or mse")]
RoundingOption = Annotated[str, typer.Option("--rounding", help="of weights: nearest or gptq")]
BiasOption = Annotated[str, typer.Option("--bias", help="keep it, or correct it for the weights' mean error")]
ReachOption = Annotated[str, typer.Option("--reach", help="of a pass: the largest change, percentile or mse")]

T = TypeVar("T")


def every(option: int | None) -> int | None:
    """``CalibrationConfig.residual_every`` of ``--residual-every``."""
    return option if option is not None and option != NEVER else None


def choose(option: str, name: str, choices: Mapping[str, T]) -> T:
    """The method that an option names.

    Raises:
        CalibrationError: an unknown name.
    """
    if name not in choices:
        raise CalibrationError(f"{option} {name!r} is unknown", mend=f"use one of {', '.join(choices)}")
    return choices[name]


def load(model: str | None) -> PretrainedModel:
    """Load a model and say what loading had to assume."""
    loaded = read_model(model)
    for note in loaded.notes:
        console.print(f"note: {note}")
    return loaded


@contextmanager
def bars() -> Iterator[Tell]:
    """Progress bars on stderr, one for each thing that runs."""
    with Progress(console=console, transient=True) as shown:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total)
            shown.update(tasks[what], completed=done, visible=done < total)

        yield tell
