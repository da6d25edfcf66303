"""Options that several commands share, each with its environment variable, and how they speak: people on stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read, on stdout.")]
Port = Annotated[
    str,
    typer.Option(
        envvar="EDGE_PORT",
        help="auto or a path, with tls:// before it where both ends must prove who they are; "
        "socket://HOST:PORT or tls://HOST:PORT.",
    ),
]
Ports = Annotated[
    list[str] | None,
    typer.Option(
        "--port",
        envvar="EDGE_PORT",
        help="A port to serve; repeat it. auto, the default: every port that is found; tls://auto: each with TLS.",
    ),
]
Baud = Annotated[int, typer.Option(envvar="EDGE_BAUD", help="Bits a second, of a real UART.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the device.")]
QueueFile = Annotated[
    Path | None, typer.Option("--queue", envvar="EDGE_QUEUE", help="The queue's file. Default: the user's own.")
]

people = Console(stderr=True, highlight=False)
"""Where people read."""


def put_json(value: object) -> None:
    """One line of JSON on stdout, at once: a program may be reading along."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
