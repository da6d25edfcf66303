"""What a fuzzer feeds: any bytes at all into the wire, where only the wire's own error may escape.

`check` is one property for everything: bytes cut anyhow give what they give whole, and no byte string makes a parser
raise anything but RemoteProtocolError. `python -m firmware_bridge.testing fuzz` runs it under atheris, guided by
coverage, from the corpus in tests/fuzz/corpus; the tests run the corpus and mutations of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from firmware_bridge import limits
from firmware_bridge.errors import RemoteProtocolError
from firmware_bridge.wire import frame, messages, packet
from firmware_bridge.wire.connection import Connection, Received
from firmware_bridge.wire.packet import Kind, Packet
from firmware_bridge.wire.states import Role
from firmware_bridge.wire.stream import MessageReader, pack


class Broken(AssertionError):  # noqa: N818  names what happened
    """The wire did what it must not."""


def check(data: bytes) -> None:
    """Feed these bytes to every layer.

    Raises:
        Broken: cut bytes gave something else than whole ones, or something was read that is not written the same way.
        Exception: any other: it escaped from a parser.
    """
    _frames(data)
    _packet(data)
    _message(data)
    _stream(data)
    _connection(data)


def _frames(data: bytes) -> None:
    whole = frame.FrameDecoder()
    found = whole.feed(data) + whole.flush()
    cut = frame.FrameDecoder()
    pieces = [piece for at in range(len(data)) for piece in cut.feed(data[at : at + 1])] + cut.flush()
    if found != pieces:
        raise Broken(f"frames byte by byte: {pieces}, whole: {found}")
    for piece in found:
        if isinstance(piece, frame.Packet) and frame.parse(frame.encode(piece.data)[1:-1]) != piece.data:
            raise Broken("a frame that is not written as it was read")
        if isinstance(piece, frame.Foreign):
            piece.text()


def _packet(data: bytes) -> None:
    try:
        found = packet.decode(data)
    except RemoteProtocolError:
        return
    if isinstance(found, Packet) and found.encode() != data:
        raise Broken(f"a packet that is not written as it was read: {found}")


def _message(data: bytes) -> None:
    try:
        found = messages.decode(data)
    except RemoteProtocolError:
        return
    if messages.encode(found) != data:
        raise Broken(f"a message that is not written as it was read: {found}")


def _stream(data: bytes) -> None:
    results = []
    for step in (1, max(1, len(data))):
        reader, found, error = MessageReader(), [], False
        try:
            for at in range(0, len(data), step):
                found += reader.feed(data[at : at + step])
        except RemoteProtocolError:
            error = True
        results.append((found if not error else None, error))
    if results[0] != results[1]:
        raise Broken(f"messages byte by byte: {results[0]}, whole: {results[1]}")


def _connection(data: bytes) -> None:
    """As raw bytes of a line, as a packet, and as the stream of a session that is open."""
    device = Connection(Role.DEVICE, epoch=lambda: 5)
    device.receive(0.0, data)
    for sent in (
        Packet(Kind.OPEN, 1 << 32).encode(),
        Packet(Kind.ACK, 1 << 32 | 5, credit=100).encode(),
        data[: limits.MAX_PACKET],
        Packet(Kind.DATA, 1 << 32 | 5, body=data[: limits.CHUNK] or b"\0").encode(),
        Packet(Kind.DATA, 1 << 32 | 5, body=pack(data[: limits.CHUNK - 2] or b"\0")).encode(),
    ):
        if sent:
            device.receive(0.0, frame.encode(sent))
        for _ in range(16):
            if not device.to_write(0.0):
                break
            device.wrote(len(device.to_write(0.0)))
    while (event := device.next_event()) is not None:
        if isinstance(event, Received):
            messages.encode(event.message)
    device.tick(10.0)
    device.take_console()


def corpus(folder: Path) -> list[bytes]:
    """The inputs in a folder, in order of their names."""
    return [path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()]


def mutations(inputs: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Inputs that grow out of these: bits flipped, bytes set to telling values, stretches cut, doubled and spliced."""
    chance = random.Random(seed)  # noqa: S311  the same inputs again
    for _ in range(count):
        data = bytearray(chance.choice(inputs))
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(5):
                case 0 if data:
                    data[at % len(data)] ^= 1 << chance.randrange(8)
                case 1 if data:
                    data[at % len(data)] = chance.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)))
                case 2:
                    del data[at : at + chance.randint(1, 8)]
                case 3:
                    data[at:at] = data[at : at + chance.randint(1, 16)]
                case _:
                    other = chance.choice(inputs)
                    begin = chance.randrange(len(other) + 1)
                    data[at:at] = other[begin : begin + chance.randint(1, 40)]
        yield bytes(data[:20_000])
