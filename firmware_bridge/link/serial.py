"""Serial ports and sockets through pyserial: opened exclusively, read and written without waiting.

pyserial opens and configures the port; the bytes then go straight through its file descriptor, because its own read
and write wait, and report a device that is gone as a device that is quiet.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import select
import termios
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import serial

from firmware_bridge import limits
from firmware_bridge.closing import Closing
from firmware_bridge.errors import LinkError, PortError, PortTaken
from firmware_bridge.link import tls
from firmware_bridge.link.base import Link
from firmware_bridge.link.discover import SECURE, resolve
from firmware_bridge.link.holders import holders

DEFAULT_BAUD: Final = 921_600
"""What every USB-UART of the last ten years can; a board's file may say more."""

_UARTS: Final = ("ttyUSB", "ttyS", "ttyAMA")
_GONE: Final = "check the cable and the device's power, then try again"


class SerialLink(Closing):
    """An open port. Made by `open_port`.

    Args:
        port: the opened pyserial object.
        name: what the user calls it.
        bytes_per_second: line rate of a real UART, else None.
    """

    def __init__(self, port: Any, name: str, bytes_per_second: float | None) -> None:  # noqa: ANN401  pyserial is untyped
        self.name = name
        self.bytes_per_second = bytes_per_second
        self._port = port
        self._file: int = port.fileno()
        os.set_blocking(self._file, False)
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLIN)

    def fileno(self) -> int:
        """The file to select on."""
        return self._file

    def read(self) -> bytes:
        """What has arrived, at most limits.READ_SIZE bytes; empty if nothing has. LinkError: the link is gone."""
        if not self._poll.poll(0):
            return b""
        try:
            data = os.read(self._file, limits.READ_SIZE)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise LinkError(f"the link is gone: {error.strerror}", where=self.name, mend=_GONE) from None
        if not data:
            raise LinkError(
                "the other end has closed the link, or another program reads from the port",
                where=self.name,
                mend=_GONE,
            )
        return data

    def write(self, data: bytes | memoryview) -> int:
        """Hand over as many bytes as the link takes now, and say how many. LinkError: the link is gone."""
        try:
            return os.write(self._file, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise LinkError(f"the link is gone: {error.strerror}", where=self.name, mend=_GONE) from None

    def set_baud(self, baud: int) -> None:
        """Go to another rate, after what was written has left. LinkError: the port does not take it."""
        try:
            termios.tcdrain(self._file)
            self._port.baudrate = baud
        except (OSError, ValueError, AttributeError, termios.error, serial.SerialException) as error:
            raise LinkError(f"the port does not take {baud} baud: {error}", where=self.name) from None
        if self.bytes_per_second is not None:
            self.bytes_per_second = baud / 10

    def close(self) -> None:
        """Give the port back. Closing twice is fine."""
        self._port.close()


def open_port(port: str = "auto", baud: int = DEFAULT_BAUD) -> Link:
    """Open a port for this process alone.

    Args:
        port: "auto" (the only candidate, see discover.py), a path, tls://HOST:PORT, or socket://HOST:PORT, which
            nobody authenticates and which is therefore for this machine's own addresses only.
        baud: bits a second; means nothing on a pty, a USB gadget or a socket.

    Raises:
        PortError: none or several for "auto"; missing, taken, not permitted, not a serial port, baud rate impossible.
    """
    name = resolve(port)
    if name.startswith(SECURE):
        return tls.connect(name)
    if "://" in name:
        _check_socket(name)
    try:
        opened = serial.serial_for_url(name, baudrate=baud, exclusive=True, timeout=0, write_timeout=0)
    except (serial.SerialException, OSError, ValueError) as error:
        raise _port_error(name, baud, error) from None
    return SerialLink(opened, name, _line_rate(name, baud))


def _check_socket(name: str) -> None:
    """Plain sockets stay on this machine."""
    parts = urlsplit(name)
    if parts.scheme != "socket":
        raise PortError("only paths, tls://HOST:PORT and socket://HOST:PORT can be opened", where=name)
    is_here = parts.hostname == "localhost"
    with contextlib.suppress(ValueError):
        is_here = is_here or ipaddress.ip_address(parts.hostname or "").is_loopback
    if not is_here:
        what = "a plain socket to another machine: whoever answers there would be believed"
        raise PortError(what, where=name, mend="use tls://HOST:PORT; python -m firmware_bridge certificates")


def _line_rate(name: str, baud: int) -> float | None:
    """Bytes a second of a real UART (8N1: ten bits a byte); None where the rate is not the baud rate's."""
    if "://" in name or not Path(name).resolve().name.startswith(_UARTS):
        return None
    return baud / 10


def _port_error(name: str, baud: int, error: Exception) -> PortError:
    number = getattr(error, "errno", None)
    if number in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
        return PortError(
            "there is no such port",
            where=name,
            mend="plug the device in; `python -m firmware_bridge ports` lists ports",
        )
    if number in {errno.EACCES, errno.EPERM}:
        return PortError(
            "you may not open this port",
            where=name,
            mend="`sudo usermod -aG dialout $USER`, then log in again",
        )
    if number in {errno.EAGAIN, errno.EBUSY}:
        return PortTaken(holders(name), where=name)
    if isinstance(error, ValueError):
        return PortError(f"the port does not take {baud} baud: {error}", where=name, mend="choose another --baud")
    if name.startswith("socket://"):
        return PortError(f"cannot connect: {error}", where=name, mend="check host and port, and that a device listens")
    return PortError(f"this is no serial port: {error}", where=name)
