"""A serial line without hardware: two pseudo-terminals and a relay between them, each end a path to open.

Facts of ptys that matter here: they need raw mode, or the line discipline eats and echoes bytes; DTR and RTS do not
exist on them (ENOTTY, which pyserial passes over); one that nobody reads takes 16 KiB at most and then blocks, so the
relay never waits for one side while the other has something; a master whose slave nobody has open reads EIO, so the
pair keeps both slaves open itself, and either end may be closed and opened again, as with a real cable.
"""

from __future__ import annotations

import os
import pty
import threading
import tty
from collections.abc import Callable
from typing import Final

from firmware_bridge.closing import Closing
from firmware_bridge.link.wait import wait_for

_READ: Final = 16 * 1024
_HELD: Final = 64 * 1024
"""Bytes that the relay holds for an end that does not read; then it stops reading from the other."""


def open_raw() -> tuple[int, int, str]:
    """A pty in raw mode: (master, slave, path of the slave). The caller closes both files."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    return master, slave, os.ttyname(slave)


class _Direction:
    """Bytes on their way from one master to the other."""

    def __init__(self, source: int, target: int, change: Callable[[bytes], bytes] | None) -> None:
        self.source = source
        self.target = target
        self._change = change
        self.held = bytearray()

    def read(self) -> None:
        data = os.read(self.source, _READ)
        self.held += data if self._change is None else self._change(data)

    def write(self) -> None:
        with memoryview(self.held) as view:
            count = os.write(self.target, view)
        del self.held[:count]


class PtyPair(Closing):
    """A line with an end for the host and an end for the device; use it as a context manager.

    Args:
        to_device: what the line does to bytes on their way to the device (tests: flip, drop); None: nothing.
        to_host: the same on the way to the host.
    """

    def __init__(
        self,
        *,
        to_device: Callable[[bytes], bytes] | None = None,
        to_host: Callable[[bytes], bytes] | None = None,
    ) -> None:
        host_master, host_slave, self.host_path = open_raw()
        device_master, device_slave, self.device_path = open_raw()
        wake, self._stop = os.pipe()
        self._wake = wake
        self._files: tuple[int, ...] = (host_master, host_slave, device_master, device_slave, wake, self._stop)
        self._directions = (
            _Direction(host_master, device_master, to_device),
            _Direction(device_master, host_master, to_host),
        )
        for master in (host_master, device_master):
            os.set_blocking(master, False)
        self._thread = threading.Thread(target=self._relay, name="pty-relay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cut the line: both ends see it hang up. Closing twice is fine."""
        if not self._files:
            return
        os.write(self._stop, b"x")
        self._thread.join()
        for file in self._files:
            os.close(file)
        self._files = ()

    def _relay(self) -> None:
        while True:
            readers = [way.source for way in self._directions if len(way.held) < _HELD]
            writers = [way.target for way in self._directions if way.held]
            readable, writable = wait_for([self._wake, *readers], writers, None)
            if self._wake in readable:
                return
            for way in self._directions:
                if way.source in readable:
                    way.read()
                if way.target in writable:
                    way.write()
