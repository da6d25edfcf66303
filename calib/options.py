"""What the commands of ``python -m calib`` share: options, loading, progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from calib.adapters import PretrainedModel
from calib.calibration import CalibrationConfig
from calib.models import load_model

console = Console(stderr=True)

Tell = Callable[[str, int, int], None]
"""``(what is running, steps done, steps in all)``."""

ModelOption = Annotated[Path | None, typer.Option("--model", help="diffusers folder; the demo model where not given")]
SamplerOption = Annotated[str, typer.Option("--sampler", help="ddim, ddpm, dpmpp2m, euler, heun or flow-euler")]
StepsOption = Annotated[int, typer.Option("--steps", help="sampler steps")]
BitsOption = Annotated[int, typer.Option("--lattice-bits", help="bits of the input lattice, 8..16")]
ResidualOption = Annotated[
    int | None, typer.Option("--residual-every", help="steps between residual passes; 0: at step 0 only")
]
ObservedOption = Annotated[int, typer.Option("--calibration-seeds", help="seeds that calibration observes")]
DEFAULTS = CalibrationConfig()


def load(model: Path | None) -> PretrainedModel:
    """Load a model and say what loading had to assume."""
    loaded = load_model(model)
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
