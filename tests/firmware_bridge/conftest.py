"""A bench: a pty pair with a device on one end, run by a thread, that can be stopped, killed and started again."""

import contextlib
import threading

import pytest

from firmware_bridge.client import Client
from firmware_bridge.errors import LinkError
from firmware_bridge.link.pty import PtyPair
from firmware_bridge.link.serial import open_port
from firmware_bridge.serve import serve
from firmware_bridge.testing.device import MemoryDevice


class Killed(Exception):
    """Ends a device's thread at once, without a good-bye."""


class Bench:
    def __init__(self, **line):
        self.line = PtyPair(**line)
        self.device = None
        self._thread = None
        self._order = "run"

    def start(self, device=None):
        self.device = MemoryDevice() if device is None else device
        self._order = "run"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self.device

    def end(self, order):
        """`stop`: the device says good-bye; `kill`: it does not."""
        self._order = order
        if self._thread is not None:
            self._thread.join(10.0)
            assert not self._thread.is_alive()

    def client(self, **options):
        return Client.open(self.line.host_path, **{"connect_timeout": 5.0, **options})

    def close(self):
        self.end("stop")
        self.line.close()

    def _stop(self):
        if self._order == "kill":
            raise Killed
        return self._order == "stop"

    def _run(self):
        with contextlib.suppress(Killed, LinkError), open_port(self.line.device_path) as link:
            serve(link, self.device, stop=self._stop)


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture
def make_bench():
    made = []

    def make(**line):
        made.append(Bench(**line))
        return made[-1]

    yield make
    for bench in made:
        bench.close()
