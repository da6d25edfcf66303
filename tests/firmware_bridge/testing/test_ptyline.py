import random
import time

import pytest

from firmware_bridge.errors import LinkError
from firmware_bridge.link.base import Link
from firmware_bridge.link.serial import open_port
from firmware_bridge.link.wait import wait_for
from firmware_bridge.testing.faulty import BOOT_LOG, Faults
from firmware_bridge.testing.ptyline import FrameFaults, pty_line


def through(host: str, device: str, data: bytes, patience: float = 30.0) -> bytes:
    got, left = b"", data
    with open_port(host) as one, open_port(device) as other:
        until = time.monotonic() + patience
        while len(got) < len(data) and time.monotonic() < until:
            readable, writable = wait_for([other.fileno()], [one.fileno()] if left else [], 1.0)
            if writable:
                left = left[one.write(left[:512]) :]
            if readable:
                got += other.read()
    return got


def test_a_line_carries_everything_and_no_faster_than_its_rate() -> None:
    data = random.Random(1).randbytes(20_000)
    with pty_line(Faults(bytes_per_second=40_000.0)) as (host, device):
        begun = time.monotonic()
        assert through(host, device, data) == data
        assert time.monotonic() - begun > 0.45


def test_a_line_ends_with_its_owner() -> None:
    with pty_line(Faults()) as (host, _):
        link = open_port(host)
    with link, pytest.raises(LinkError):
        read_until_it_ends(link)


def read_until_it_ends(link: Link) -> None:
    for _ in range(100):
        link.read()
        time.sleep(0.01)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_frames_get_lost_whole_however_they_are_cut(size: int) -> None:
    frames = [bytes([1 + number % 200]) * 20 for number in range(500)]
    stream = b"".join(b"\0" + each + b"\0" for each in frames)
    change = FrameFaults(Faults(loss=0.2, duplication=0.1, boot_log=0.05), random.Random(3))
    out = b"".join(change(stream[at : at + size]) for at in range(0, len(stream), size))
    got = [piece for piece in out.replace(BOOT_LOG, b"").split(b"\0") if piece]
    assert set(got) <= set(frames)
    assert 350 < len(got) < 520
    assert 10 < out.count(BOOT_LOG) < 50


def test_frames_are_overtaken_and_none_is_lost_that_others_follow() -> None:
    frames = [b"%04d" % number for number in range(600)]
    change = FrameFaults(Faults(reordering=0.2), random.Random(3))
    out = b"".join(change(b"\0" + each + b"\0") for each in frames)
    got = [piece for piece in out.split(b"\0") if piece]
    assert got != sorted(got)
    assert len(got) == len(set(got))
    assert set(frames[:570]) <= set(got)


def test_a_burst_is_noise_and_a_stall_holds_the_line_for_as_long_as_said() -> None:
    change = FrameFaults(Faults(burst=1.0, burst_seconds=0.5), random.Random(3))
    assert b"frame" not in change(b"\0frame\0", 10.0)
    change = FrameFaults(Faults(stall=1.0, stall_seconds=2.0), random.Random(3))
    assert change(b"\0frame\0", 10.0) == b"\0frame\0"
    assert 10.0 < change.stalled_until <= 12.0


def test_a_line_of_its_own_takes_every_fault() -> None:
    data = b"".join(b"\0" + b"%05d" % number * 20 + b"\0" for number in range(200))
    faults = Faults(reordering=0.2, stall=0.02, stall_seconds=0.2, burst=0.02, burst_seconds=0.001)
    with pty_line(faults, 5) as (host, device):
        got = through(host, device, data[: len(data) // 2], patience=3.0)
    pieces = [piece for piece in got.split(b"\0") if piece]
    assert pieces != sorted(pieces)


def test_bits_flip_inside_frames_only() -> None:
    change = FrameFaults(Faults(bit_errors=0.01), random.Random(3))
    out = change((b"\0" + b"\xff" * 100 + b"\0") * 50)
    assert out.count(b"\0") >= 100
    assert out.strip(b"\0") != b"\xff" * 100
    assert FrameFaults(Faults(), random.Random(3))(b"as it is") == b"as it is"
