"""Which port a port is, whatever name it has today: ttyUSB numbers move when boards are plugged in again.

A USB port is known by vendor, product, serial number and the socket it is plugged into; the same board in another
socket is still found by its serial number where no other board has the same one. Any other port is known by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serial.tools import list_ports

from firmware_bridge.errors import PortError
from firmware_bridge.link.base import Link

_PTYS: Final = "/dev/pts/"


@dataclass(frozen=True)
class PortIdentity:
    """What is plugged in.

    Args:
        path: the name under which it was opened.
        vendor: USB vendor id; None: not a USB port.
        product: USB product id.
        serial_number: USB serial number; clones share it, and some have none.
        location: USB bus and socket, e.g. "1-1.4".
    """

    path: str
    vendor: int | None = None
    product: int | None = None
    serial_number: str | None = None
    location: str | None = None


def identify(path: str) -> PortIdentity:
    """What is plugged in at this path now."""
    return next((each for each in plugged() if _same_file(each.path, path)), PortIdentity(path))


def plugged() -> list[PortIdentity]:
    """Every serial port of the system."""
    return [
        PortIdentity(port.device, port.vid, port.pid, port.serial_number, port.location)
        for port in list_ports.comports()
    ]


def find(wanted: PortIdentity, search: Callable[[], list[PortIdentity]] = plugged) -> str:
    """The path of this port now.

    Raises:
        PortError: it is not plugged in, or several might be it.
    """
    if wanted.vendor is None:
        return wanted.path
    alike = [each for each in search() if (each.vendor, each.product) == (wanted.vendor, wanted.product)]
    alike = [each for each in alike if each.serial_number == wanted.serial_number]
    here = [each for each in alike if each.location == wanted.location]
    found = here or (alike if wanted.serial_number is not None else [])
    if not found:
        raise PortError("the port is unplugged", where=wanted.path, mend="plug the device in again")
    if len(found) > 1:
        listed = ", ".join(each.path for each in found)
        raise PortError(f"several ports could be it: {listed}", where=wanted.path, mend="plug it into its old socket")
    return found[0].path


def reopener(name: str, baud: int) -> Callable[[], Link] | None:
    """A function that opens the port again that is open under this name now, wherever it is by then.

    None for a pty named by its number: once it is gone the next one to come gets the number. (A link to one, under a
    name of its own, is opened again wherever it points by then.)
    """
    from firmware_bridge.link.serial import open_port  # noqa: PLC0415  it asks this module in turn

    if "://" in name:
        return lambda: open_port(name, baud)
    if name.startswith(_PTYS):
        return None
    identity = identify(name)
    return lambda: open_port(find(identity), baud)


def _same_file(one: str, other: str) -> bool:
    return one == other or Path(one).resolve() == Path(other).resolve()
