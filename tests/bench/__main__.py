"""``python -m tests.bench``: one subcommand a measurement; see README.md beside this file."""

from __future__ import annotations

from typing import Annotated

import typer

from edge.console import reports_errors
from tests.bench import output
from tests.bench.instructions import count

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
AsJson = Annotated[bool, typer.Option("--json", help="Write the result to stdout as JSON.")]


@app.callback()
def bench() -> None:
    """Measure the engine and its rivals, side by side."""


@app.command("count", context_settings={"ignore_unknown_options": True})
@reports_errors
def count_command(
    command: Annotated[list[str], typer.Argument(help="An aarch64 program and its arguments.")],
    cpu: Annotated[str, typer.Option(help="The core to emulate.")] = "cortex-a76",
    json: AsJson = False,
) -> None:
    """Count the instructions of any aarch64 program by class."""
    recording = count(command, cpu=cpu)
    rows = [[name, f"{found:,}"] for name, found in recording.total.items()]
    output.show("instructions executed", ["class", "count"], [*rows, ["total", f"{recording.total.total:,}"]])
    output.emit(recording.total, as_json=json)


if __name__ == "__main__":
    app()
