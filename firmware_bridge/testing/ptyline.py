"""A serial line in a process of its own: two ptys, a baud rate that is kept, and frames that get lost or damaged.

Bytes leave at the line's rate and no sooner; what one end writes ahead of it waits in its pty, as in a UART's driver,
so a writer feels the line's backpressure. Faults work on what stands between zeros, as frames do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final

from firmware_bridge.errors import LinkError
from firmware_bridge.link.pty import open_raw
from firmware_bridge.link.wait import wait_for
from firmware_bridge.testing.faulty import BOOT_LOG, Faults, flip_bits

_TICK: Final = 0.001
_HELD: Final = 4096
"""Bytes that wait inside the line; more wait in the writer's pty."""
_START: Final = 10.0
_OVERTAKEN: Final = 20
"""Frames that overtake a late one at most."""


class FrameFaults:
    """What a line does to the frames of a stream, cut anywhere.

    Args:
        faults: all but the delay, which is the ptys' own.
        chance: where its chances come from.
    """

    def __init__(self, faults: Faults, chance: random.Random) -> None:
        self._faults = faults
        self._chance = chance
        self._rest = b""
        self._is_clean = faults == Faults(delay=faults.delay, bytes_per_second=faults.bytes_per_second)
        self._noise_until = float("-inf")
        self._late: list[tuple[int, bytes]] = []  # frames that are overtaken: (number of the frame to follow, bytes)
        self._frames = 0
        self.stalled_until = float("-inf")
        """Until then nothing leaves the line."""

    def __call__(self, data: bytes, now: float = 0.0) -> bytes:
        """What comes out of the line for these bytes.

        Args:
            data: anything.
            now: seconds of a monotonic clock; bursts and stalls last by it.
        """
        if self._is_clean:
            return data
        *frames, self._rest = (self._rest + data).split(b"\0")
        return b"".join(self._pass(frame, now) for frame in frames)

    def _pass(self, frame: bytes, now: float) -> bytes:
        faults, chance = self._faults, self._chance
        if not frame:
            return b"\0"
        self._frames += 1
        if chance.random() < faults.stall:
            self.stalled_until = now + chance.uniform(0, faults.stall_seconds)
        if chance.random() < faults.burst:
            self._noise_until = now + faults.burst_seconds
        text = BOOT_LOG if chance.random() < faults.boot_log else b""
        if now < self._noise_until:
            return text + chance.randbytes(len(frame))
        if chance.random() < faults.loss:
            return text
        out = flip_bits(frame, faults.bit_errors, chance) + b"\0"
        out += b"\0" + out if chance.random() < faults.duplication else b""
        if chance.random() < faults.reordering:
            self._late.append((self._frames + chance.randint(1, _OVERTAKEN), b"\0" + out))
            return text
        arrived = b"".join(late for number, late in self._late if number <= self._frames)
        self._late = [each for each in self._late if each[0] > self._frames]
        return text + out + arrived


class _Way:
    """One direction: bytes from one master to the other, at the line's rate."""

    def __init__(self, source: int, target: int, change: FrameFaults, rate: float | None) -> None:
        self.source = source
        self.target = target
        self._change = change
        self._rate = rate
        self._free_at = 0.0
        self._held = bytearray()

    @property
    def takes(self) -> bool:
        return len(self._held) < _HELD

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._held += self._change(os.read(self.source, _HELD), time.monotonic())

    def write(self, now: float) -> None:
        """What the rate allows by now."""
        if not self._held or now < self._change.stalled_until:
            return
        self._free_at = max(self._free_at, now - 0.01)  # an idle line saves nothing up but the time of a tick or two
        allowed = len(self._held) if self._rate is None else int((now - self._free_at) * self._rate)
        if allowed <= 0:
            return
        with contextlib.suppress(BlockingIOError), memoryview(self._held)[:allowed] as view:
            count = os.write(self.target, view)
            self._free_at += count / self._rate if self._rate else 0.0
            view.release()
            del self._held[:count]


def run(faults: Faults, seed: int) -> None:
    """Print the paths of both ends, then be the line until standard input closes."""
    host, host_slave, host_path = open_raw()
    device, device_slave, device_path = open_raw()
    for master in (host, device):
        os.set_blocking(master, False)
    ways = [
        _Way(one, other, FrameFaults(faults, random.Random(seed + number)), faults.bytes_per_second)  # noqa: S311
        for number, (one, other) in enumerate(((host, device), (device, host)))
    ]
    print(host_path, device_path, flush=True)
    while True:
        readers = [way.source for way in ways if way.takes]
        readable, _ = wait_for([0, *readers], [], _TICK)
        if 0 in readable and not os.read(0, 64):
            break
        for way in ways:
            if way.source in readable:
                way.read()
            way.write(time.monotonic())
    for file in (host, host_slave, device, device_slave):
        os.close(file)


@contextlib.contextmanager
def pty_line(faults: Faults, seed: int = 1) -> Iterator[tuple[str, str]]:
    """A line in its own process: (path of the host's end, path of the device's end).

    Args:
        faults: what it does; `bytes_per_second` is its rate, and the delay is the ptys' own.
        seed: from which its chances follow.

    Raises:
        LinkError: the process did not start.
    """
    rate = [] if faults.bytes_per_second is None else ["--bytes-per-second", str(faults.bytes_per_second)]
    named = [
        word
        for name, value in dataclasses.asdict(faults).items()
        if name not in {"delay", "bytes_per_second"}
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    command = [sys.executable, "-m", "firmware_bridge.testing", "line", "--seed", str(seed), *rate, *named]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    killer = threading.Timer(_START, process.kill)
    killer.start()
    try:
        paths = process.stdout.readline().split()
        killer.cancel()
        if len(paths) != 2:
            raise LinkError("the line's process did not start", where=" ".join(command))
        yield paths[0], paths[1]
    finally:
        killer.cancel()
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_START)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
        process.stdout.close()
