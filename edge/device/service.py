"""What a service manager is told: that the device serves, and that it is still alive (systemd's sd_notify protocol)."""

from __future__ import annotations

import os
import socket
import time


class ServiceManager:
    """Speaks to ``$NOTIFY_SOCKET``; without one it says nothing. A manager that is gone is no trouble of ours."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        self._period = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6  # twice as often as it is wanted
        self._due = 0.0

    def ready(self) -> None:
        """The port is open."""
        self._say(b"READY=1")

    def alive(self) -> None:
        """The device works; to be said often, it is passed on when it is due."""
        now = time.monotonic()
        if self._period and now >= self._due:
            self._due = now + self._period
            self._say(b"WATCHDOG=1")

    def _say(self, what: bytes) -> None:
        if self._address:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                try:
                    out.sendto(what, self._address)
                except OSError:
                    return
