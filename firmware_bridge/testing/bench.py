"""A bench: a pty pair with a device on one end, run by a thread, that can be stopped, killed and started again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from enum import Enum
from typing import Self

from firmware_bridge.client import Client
from firmware_bridge.errors import LinkError
from firmware_bridge.handler import DeviceHandler
from firmware_bridge.link.pty import PtyPair
from firmware_bridge.link.serial import open_port
from firmware_bridge.serve import serve
from firmware_bridge.wire.secure import Security


class Order(Enum):
    """How a device is to go on."""

    RUN = "run"
    STOP = "stop"
    """End, with a good-bye to the host."""
    KILL = "kill"
    """End in the middle of what it does, without a word."""


class _Killed(Exception):  # noqa: N818  not an error
    """Ends a device's thread."""


class Bench:
    """A line with one device at a time; close it when done.

    Args:
        to_device: what the line does to bytes on their way to the device.
        to_host: the same on the way to the host.
    """

    def __init__(
        self,
        *,
        to_device: Callable[[bytes], bytes] | None = None,
        to_host: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.line = PtyPair(to_device=to_device, to_host=to_host)
        self._thread: threading.Thread | None = None
        self._order = Order.RUN

    def start(self, device: DeviceHandler, security: Security | None = None) -> None:
        """Run a device on the line; with TLS, if its end of it is given."""
        self._order = Order.RUN
        self._thread = threading.Thread(target=self._run, args=(device, security), daemon=True)
        self._thread.start()

    def end(self, order: Order) -> None:
        """End the device that runs, and wait until it has."""
        self._order = order
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def client(self, connect_timeout: float = 5.0, security: Security | None = None) -> Client:
        """A host on the other end; with TLS, if its end of it is given."""
        return Client(open_port(self.line.host_path), connect_timeout=connect_timeout, security=security)

    def close(self) -> None:
        """End the device and cut the line."""
        self.end(Order.STOP)
        self.line.close()

    def _stop(self) -> bool:
        if self._order is Order.KILL:
            raise _Killed
        return self._order is Order.STOP

    def _run(self, device: DeviceHandler, security: Security | None) -> None:
        with contextlib.suppress(_Killed, LinkError), open_port(self.line.device_path) as link:
            serve(link, device, stop=self._stop, security=security)

    def __enter__(self) -> Self:
        """The bench itself."""
        return self

    def __exit__(self, *ended: object) -> None:
        """Closes."""
        self.close()
