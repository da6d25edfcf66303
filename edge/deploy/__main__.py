"""The command line of a deployment."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from boards import load_board
from edge.cache import CACHE_VARIABLE, cache_folder
from edge.console import Stages, reports_errors
from edge.deploy.options import DeployOptions
from edge.device.durable import write_file

EXAMPLES = """
Examples:

  python -m edge.deploy --board rpi5                           the demo model; a virtual Pi 5 if none is there

  python -m edge.deploy --board rpi5 --port /dev/ttyUSB0       the board on that port

  python -m edge.deploy --board rpi5 --model DIR --image a.png your model, your picture

  python -m edge.deploy --board rpi5 --model my.py:build       any nn.Module: a function that returns calib.adapt(...)

  python -m edge.deploy --board rpi5 --model DIR --condition class_labels=207 --guidance 4

  python -m edge.deploy --board rpi5 --calibration PLAN        what python -m calib plan --out PLAN has chosen

Exit codes: 0 done, 2 usage, 3 board, 4 model, 5 calibration, 6 toolchain or lowering, 7 bundle, 8 port, 9 link,
10 device refused, 11 job failed, 12 job input, 130 interrupted.
"""


NOISY_LIBRARIES = ("torchao", "torch.utils._pytree")
"""They report optional parts of themselves that no deployment uses."""


@reports_errors
def main(
    *,
    board: Annotated[str, typer.Option(envvar="EDGE_BOARD", help="rpi5, rpi4, host, or a TOML file")],
    model: Annotated[
        str | None,
        typer.Option(
            envvar="EDGE_MODEL", help="diffusers folder, or FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION; default: demo"
        ),
    ] = None,
    port: Annotated[
        str | None,
        typer.Option(
            envvar="EDGE_PORT", help="auto, a path, tls:// before either, or tls://HOST:PORT; default: virtual if none"
        ),
    ] = None,
    virtual: Annotated[bool, typer.Option("--virtual", help="a virtual board even if ports are there")] = False,
    sampler: Annotated[
        str, typer.Option(envvar="EDGE_SAMPLER", help="ddim, ddpm, dpmpp2m, euler, heun or flow-euler")
    ] = "ddim",
    steps: Annotated[int, typer.Option(envvar="EDGE_STEPS", help="sampler steps")] = 50,
    generate: Annotated[
        list[int] | None, typer.Option(help="seed of a generate job; repeat it; default: 0 and 1")
    ] = None,
    image: Annotated[list[Path] | None, typer.Option(help="picture of an inspect job; repeat it")] = None,
    inspect_from: Annotated[float, typer.Option(help="share of the steps an inspection skips")] = 0.84,
    condition: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE or NAME=FILE.safetensors of a conditional model; repeat it")
    ] = None,
    guidance: Annotated[float | None, typer.Option(help="scale of classifier-free guidance")] = None,
    references: Annotated[
        Path | None,
        typer.Option(envvar="EDGE_REFERENCES", help="folder of good pictures: others unlike them are flagged"),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            envvar="EDGE_CALIBRATION", help="folder that calib plan or calib calibrate wrote; default: made here"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(envvar="EDGE_OUT", help="folder for pictures and report.json")] = Path("out"),
    cache: Annotated[Path | None, typer.Option(envvar=CACHE_VARIABLE, help="cache folder; default: the user's")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="write the report as JSON on stdout")] = False,
) -> None:
    """Put a pretrained diffusion model on a board, run jobs there, and prove that they are right."""
    options = DeployOptions(
        board=board,
        model=model,
        port=port,
        virtual=virtual,
        sampler=sampler,
        conditions=tuple(condition or []),
        guidance=guidance,
        references=references,
        calibration=calibration,
        steps=steps,
        seeds=tuple(generate or [0, 1]),
        images=tuple(image or []),
        inspect_from=inspect_from,
        out=out,
        cache=cache or cache_folder(),
    )
    options.check()
    target = load_board(board)
    # The modules below take seconds to import, PyTorch above all: what is refused so far is refused at once.
    from edge.deploy.connect import choose_port  # noqa: PLC0415

    chosen = choose_port(options, target)
    for library in NOISY_LIBRARIES:
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    from edge.deploy.run import deploy  # noqa: PLC0415

    report = deploy(options, target, chosen, Stages())
    write_file(out / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    if json_output:
        sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
    app.command(epilog=EXAMPLES)(main)
    app()
