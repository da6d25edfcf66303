"""Which port is meant: `auto` takes the only candidate, and never the first of several in silence."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from serial.tools import list_ports

from firmware_bridge.errors import PortError

PORTS_VARIABLE: Final = "EDGE_PORTS"
"""Environment variable: glob patterns, colon-separated, of the paths that count as candidates, in place of the search
for USB and on-board UARTs, e.g. /dev/serial/by-path/*."""

SECURE: Final = "tls://"
"""Begins a port whose two ends prove who they are: before HOST:PORT a network link, before a path or `auto` a serial
line (security.py)."""

_ONBOARD: Final = "/dev/ttyAMA"


@dataclass(frozen=True)
class Candidate:
    """A port that a device may be on.

    Args:
        path: what to open.
        description: what the system knows of it: product, maker, serial number.
    """

    path: str
    description: str


def candidates() -> list[Candidate]:
    """The ports that a device may be on: USB serial ports and on-board UARTs, or what the environment names."""
    patterns = os.environ.get(PORTS_VARIABLE)
    if patterns is not None:
        paths = sorted({path for pattern in patterns.split(":") if pattern for path in glob.glob(pattern)})  # noqa: PTH207  absolute patterns
        return [Candidate(path, f"named by {PORTS_VARIABLE}") for path in paths]
    found = [port for port in list_ports.comports() if port.vid is not None or port.device.startswith(_ONBOARD)]
    return [Candidate(port.device, _describe(port.description, port.serial_number)) for port in sorted(found)]


def resolve(port: str, search: Callable[[], Sequence[Candidate]] = candidates) -> str:
    """The port to open: `port` itself, or for "auto" the only candidate, with tls:// before it if that was there.

    Raises:
        PortError: "auto" and no candidate, or several; these are listed.
    """
    if port == SECURE + "auto":
        return SECURE + resolve("auto", search)
    if port != "auto":
        return port
    found = search()
    if not found:
        raise PortError(
            "no serial port with a device was found",
            where="--port auto",
            mend="plug the device in, or name its port: --port PATH or --port socket://HOST:PORT",
        )
    if len(found) > 1:
        listed = "; ".join(f"{candidate.path} ({candidate.description})" for candidate in found)
        raise PortError(
            f"{len(found)} serial ports could be meant: {listed}", where="--port auto", mend="name one: --port PATH"
        )
    return found[0].path


def secure_line(port: str) -> tuple[str, str] | None:
    """Of a serial line with TLS: (the name that the peer's certificate must have, "" for any; the path); else None."""
    peer, slash, path = port.removeprefix(SECURE).partition("/")
    if not port.startswith(SECURE) or not slash or not path or ":" in peer:
        return None
    return peer, f"/{path}"


def named(ports: Sequence[str] | None) -> list[str]:
    """The ports that are meant where several may be: every candidate for None and for "auto".

    Args:
        ports: as the user writes them; tls://auto: every candidate, with TLS.
    """
    found: list[str] = []
    for port in ports or ("auto",):
        if port in {"auto", SECURE + "auto"}:
            found += [port.removesuffix("auto") + candidate.path for candidate in candidates()]
        else:
            found.append(port)
    return found


def _describe(description: str, serial_number: str | None) -> str:
    return f"{description}, serial number {serial_number}" if serial_number else description
