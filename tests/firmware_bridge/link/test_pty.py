import select
import threading
import time
from pathlib import Path

from firmware_bridge.link.pty import PtyPair
from firmware_bridge.link.serial import SerialLink, open_port


def read_exactly(link: SerialLink, count: int, seconds: float = 10.0) -> bytes:
    got, until = b"", time.monotonic() + seconds
    while len(got) < count and time.monotonic() < until:
        select.select([link], [], [], 0.1)
        got += link.read()
    return got


def test_an_end_that_does_not_read_blocks_only_its_own_direction() -> None:
    with PtyPair() as pair, open_port(pair.host_path) as host, open_port(pair.device_path) as device:
        total, quiet = 0, 0
        while quiet < 20:  # until nothing more is taken
            count = host.write(bytes(8192))
            total, quiet = total + count, 0 if count else quiet + 1
            time.sleep(0.005)
        assert total < 512 * 1024  # bounded
        device.write(b"the other way is free")
        assert read_exactly(host, 21) == b"the other way is free"
        assert len(read_exactly(device, total)) == total


def test_an_end_may_be_closed_and_opened_again() -> None:
    with PtyPair() as pair, open_port(pair.host_path) as host:
        for word in (b"one", b"two"):
            with open_port(pair.device_path) as device:
                host.write(word)
                assert read_exactly(device, 3) == word


def test_the_line_may_change_bytes() -> None:
    with (
        PtyPair(to_device=bytes.upper, to_host=lambda data: data[::-1]) as pair,
        open_port(pair.host_path) as host,
        open_port(pair.device_path) as device,
    ):
        host.write(b"abc")
        assert read_exactly(device, 3) == b"ABC"
        device.write(b"xyz")
        assert read_exactly(host, 3) == b"zyx"


def test_closing_leaves_nothing_behind() -> None:
    files, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    for _ in range(3):
        pair = PtyPair()
        pair.close()
        pair.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == files
    assert threading.active_count() == threads
