"""What a receiver does with damage and garbage: nothing of it is accepted, and its memory stays what it is."""

from __future__ import annotations

import random
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from firmware_bridge.wire import frame
from firmware_bridge.wire.connection import Connection
from firmware_bridge.wire.packet import Kind, Packet
from firmware_bridge.wire.states import Role

_BLOCK: Final = 16 * 1024


def corrupted_frames(count: int, seed: int = 1) -> int:
    """Damage frames, each in another way, and see how many of them are taken for whole.

    Args:
        count: of damaged frames.
        seed: from which frames and damage follow.

    Returns:
        The number accepted.
    """
    chance = random.Random(seed)  # noqa: S311  the same damage again
    accepted = 0
    for _ in range(count):
        body = chance.randbytes(chance.choice((1, 8, 60, 200)))
        packet = Packet(Kind.DATA, chance.getrandbits(64), chance.getrandbits(32), body=body).encode()
        whole = frame.encode(packet)[1:-1]
        damaged = _damage(whole, chance)
        for piece in damaged.split(b"\0"):
            found = frame.parse(piece) if piece and piece != whole else None
            accepted += found is not None
    return accepted


def _damage(data: bytes, chance: random.Random) -> bytes:
    """One to many flipped bits, a burst, a cut, a doubled or a lost stretch; never the data itself."""
    damaged = bytearray(data)
    kind = chance.randrange(5)
    at = chance.randrange(len(damaged))
    if kind == 0:
        for _ in range(chance.choice((1, 2, 3, 4, 8))):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        length = min(chance.randint(1, 16), len(damaged) - at)
        damaged[at : at + length] = chance.randbytes(length)
    elif kind == 2:
        del damaged[at:]
    elif kind == 3:
        damaged[at:at] = damaged[at : at + chance.randint(1, 8)]
    else:
        del damaged[at : at + chance.randint(1, 8)]
    return bytes(damaged)


@dataclass(frozen=True)
class Garbage:
    """What a flood of garbage did.

    Args:
        bytes: fed.
        rss_before: KiB, after a first part of it.
        rss_after: KiB, after all of it.
        peak: KiB, the most the process ever had.
        events: what the connection made of it; 0 is right.
    """

    bytes: int
    rss_before: int
    rss_after: int
    peak: int
    events: int


def garbage(size: int, seed: int = 1) -> Garbage:
    """Feed a device's end garbage of every kind and look at the memory of this process.

    Args:
        size: bytes.
        seed: from which the garbage follows.
    """
    device, events, fed, before = Connection(Role.DEVICE), 0, 0, 0
    for block in _blocks(seed):
        device.receive(fed / 1e6, block)
        while device.to_write(fed / 1e6):
            device.wrote(len(device.to_write(fed / 1e6)))
        while device.next_event() is not None:
            events += 1
        fed += len(block)
        if not before and fed >= size // 16:
            before = _rss()
        if fed >= size:
            break
    return Garbage(fed, before, _rss(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, events)


def _blocks(seed: int) -> Iterator[bytes]:
    """Noise, noise without zeros, text, zeros, and frames whose packets are noise."""
    chance = random.Random(seed)  # noqa: S311  the same garbage again
    noise = chance.randbytes(_BLOCK)
    dense = noise.replace(b"\0", b"\1")
    text = b"".join(b"[%8d.%06d] usb 1-1: new device\r\n" % (number, number) for number in range(400))[:_BLOCK]
    framed = b"".join(frame.encode(chance.randbytes(chance.randint(1, 300))) for _ in range(100))
    while True:
        yield from (noise, dense, dense, dense, text, bytes(_BLOCK), framed)
        noise = chance.randbytes(_BLOCK)


def _rss() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
