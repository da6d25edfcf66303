"""`console`: what the device writes on the line beside the protocol, and what its supervisor logs."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from firmware_bridge.client import Client
from firmware_bridge.commands.options import AsJson, Baud, Port, Timeout, put_json
from firmware_bridge.link.serial import DEFAULT_BAUD

_LOOK = 0.2


def console(
    port: Port = "auto",
    baud: Baud = DEFAULT_BAUD,
    timeout: Timeout = 10.0,
    seconds: Annotated[float | None, typer.Option(min=0, help="End after so many seconds; default: Ctrl-C.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the device's console text as it comes: boot messages, kernel lines, the supervisor's log."""
    until = None if seconds is None else time.monotonic() + seconds
    with Client.open(port, baud=baud, connect_timeout=timeout) as client:
        while until is None or time.monotonic() < until:
            client.poll_event(_LOOK)
            text = client.console()
            if text and as_json:
                put_json({"time": time.time(), "text": text})
            elif text:
                sys.stdout.write(text)
                sys.stdout.flush()
