"""Rates over real ptys, on a line that turns bytes into noise while its two ends are set to different ones."""

import termios
import threading
import time
from collections.abc import Iterator

import pytest

from firmware_bridge.client import Client
from firmware_bridge.errors import DeviceRefused, LinkError
from firmware_bridge.jobs import JobRequest
from firmware_bridge.link.pty import PtyPair
from firmware_bridge.link.serial import open_port
from firmware_bridge.serve import serve
from firmware_bridge.testing.device import MemoryDevice

BASE, FAST = 115_200, 3_000_000


class Line:
    """A device on a line with rates."""

    def __init__(self) -> None:
        self.works_fast = True
        self.pair = PtyPair(to_device=self._pass, to_host=self._pass)
        self.device = MemoryDevice()
        self._is_over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def rates(self) -> tuple[int, int]:
        return tuple(termios.tcgetattr(self.pair._files[number])[5] for number in (1, 3))

    def _pass(self, data: bytes) -> bytes:
        host, device = self.rates()
        is_fast = host == termios.B3000000
        return data if host == device and (self.works_fast or not is_fast) else bytes(byte ^ 0xA5 for byte in data)

    def _run(self) -> None:
        try:
            with open_port(self.pair.device_path, BASE) as link:
                serve(link, self.device, stop=lambda: self._is_over, baud=BASE, most_baud=FAST)
        except LinkError:
            assert self._is_over

    def client(self) -> Client:
        return Client(open_port(self.pair.host_path, BASE), connect_timeout=15, baud=BASE)

    def close(self) -> None:
        self._is_over = True
        self._thread.join()
        self.pair.close()


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.close()


def wait_for_rates(line: Line, rate: int) -> None:
    until = time.monotonic() + 5
    while line.rates() != (rate, rate):
        assert time.monotonic() < until
        time.sleep(0.01)


def echo(client: Client, job_id: str) -> bool:
    payload = bytes(range(256)) * 20
    return client.run(JobRequest(job_id, "echo", {}, payload), timeout=30).payload == payload[::-1]


def test_both_ends_go_up_and_back_at_the_end(line: Line) -> None:
    with line.client() as client:
        assert "baud:3000000" in client.info.capabilities
        assert echo(client, "slow")
        assert client.speed_up(FAST)
        assert line.rates() == (termios.B3000000, termios.B3000000)
        assert echo(client, "fast")
    with line.client() as client:  # a new host begins at the old rate, and finds the device there
        assert echo(client, "again")
    assert line.device.sessions == 2


def test_a_line_that_does_not_carry_the_rate_is_back_at_the_old_one(line: Line) -> None:
    line.works_fast = False
    with line.client() as client:
        assert not client.speed_up(FAST)
        wait_for_rates(line, termios.B115200)  # the device began its trial a little later
        assert echo(client, "slow")
    assert line.device.sessions == 1  # the session has outlived it


def test_a_host_that_is_gone_without_a_word_leaves_a_device_that_comes_back(line: Line) -> None:
    client = line.client()
    assert client.speed_up(FAST)
    line.pair._directions[0]._change = lambda _: b""  # its last words are lost
    client.close()
    line.pair._directions[0]._change = line._pass
    begun = time.monotonic()
    with line.client() as again:
        assert echo(again, "slow")
    assert time.monotonic() - begun < 15


def test_a_rate_that_the_device_does_not_offer_is_refused(line: Line) -> None:
    with line.client() as client:
        with pytest.raises(DeviceRefused, match="this end can 3000000"):
            client.speed_up(FAST + 1)
        assert echo(client, "slow")
