"""`python -m firmware_bridge`: look at ports and devices from a shell."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Annotated

import typer

from boards.errors import KitError
from firmware_bridge.client import Client
from firmware_bridge.link.discover import candidates
from firmware_bridge.link.serial import DEFAULT_BAUD

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Port = Annotated[str, typer.Option(envvar="EDGE_PORT", help="auto, a path, or socket://HOST:PORT.")]
Baud = Annotated[int, typer.Option(envvar="EDGE_BAUD", help="Bits a second, of a real UART.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the device.")]


@app.command()
def ports(as_json: AsJson = False) -> None:
    """List the serial ports that a device may be on."""
    found = candidates()
    if as_json:
        print(json.dumps([dataclasses.asdict(candidate) for candidate in found]))
        return
    for candidate in found:
        print(f"{candidate.path}  {candidate.description}")
    if not found:
        print("no serial port with a device was found", file=sys.stderr)


@app.command()
def hello(port: Port = "auto", baud: Baud = DEFAULT_BAUD, timeout: Timeout = 10.0, as_json: AsJson = False) -> None:
    """Ask the device on a port who it is and what it can hold."""
    with Client.open(port, baud=baud, connect_timeout=timeout) as client:
        info = dataclasses.asdict(client.info)
    if as_json:
        print(json.dumps(info))
        return
    for name, value in info.items():
        shown = ", ".join(f"{key} {entry}" for key, entry in value.items()) if isinstance(value, dict) else value
        print(f"{name.replace('_', ' '):15} {'-' if shown in (None, ()) else shown}")


def main() -> None:
    """Run a command; an error of the kit ends in its message and its exit code."""
    try:
        app(prog_name="python -m firmware_bridge")  # ends by itself: 0, 2 for wrong usage, 130 for Ctrl-C
    except KitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
