"""Packets: the header of the session layer, one form for every kind. Byte table: PROTOCOL.md."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from firmware_bridge import limits
from firmware_bridge.errors import RemoteProtocolError
from firmware_bridge.wire.version import PROTOCOL

_HEADER: Final = struct.Struct("<BBHQIIB")
HEADER_BYTES: Final = _HEADER.size
_RANGE_BYTES: Final = 4

Range = tuple[int, int]
"""(first byte, one past the last byte), counted from `acknowledged`."""


class Kind(enum.IntEnum):
    """What a packet is for."""

    OPEN = 1
    """Host: begin a session; `session` holds the host's epoch in its upper half."""
    ACCEPT = 2
    """Device: the session is ready; `session` holds both epochs."""
    DATA = 3
    """Bytes of the message stream, from `offset` on."""
    ACK = 4
    """Nothing but the acknowledgement that every packet carries; `offset` repeats that of the PING it answers, or 0."""
    PING = 5
    """Are you there? Answered by an ACK. `offset` is the question's number, 1 or more."""
    RESET = 6
    """Device: the session that you use does not exist (any more)."""
    CLOSE = 7
    """The session is over, on purpose."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet.

    Args:
        kind: what it is for.
        session: host's epoch << 32 | device's epoch.
        offset: of a DATA packet's first byte in the sender's stream, modulo 2**32; the number of a PING.
        acknowledged: the byte that the sender expects next, modulo 2**32: everything before it has arrived.
        ranges: what has arrived after it, counted from `acknowledged`, in order; at most limits.MAX_RANGES.
        credit: bytes from `acknowledged` on that the sender has room for.
        body: the bytes of a DATA packet; empty in others.
    """

    kind: Kind
    session: int
    offset: int = 0
    acknowledged: int = 0
    ranges: tuple[Range, ...] = ()
    credit: int = 0
    body: bytes = b""

    def encode(self) -> bytes:
        """The packet's bytes."""
        header = _HEADER.pack(
            PROTOCOL, self.kind, self.credit, self.session, self.offset, self.acknowledged, len(self.ranges)
        )
        if not self.ranges:
            return header + self.body
        numbers = [number for start, end in self.ranges for number in (start, end - start)]
        return header + struct.pack(f"<{len(numbers)}H", *numbers) + self.body


@dataclass(frozen=True, slots=True)
class OtherVersion:
    """A packet of another version of the protocol. Its first two bytes are version and kind in every version."""

    version: int
    kind: int


def decode(data: bytes) -> Packet | OtherVersion:
    """The packet in these bytes.

    Raises:
        RemoteProtocolError: too short, of no known kind, a body where none belongs, ranges that are none; never
            another error.
    """
    if len(data) < 2:
        raise RemoteProtocolError(f"a packet of {len(data)} bytes")
    if data[0] != PROTOCOL:
        return OtherVersion(data[0], data[1])
    if not HEADER_BYTES <= len(data) <= limits.MAX_PACKET:
        raise RemoteProtocolError(f"a packet of {len(data)} bytes")
    _, kind, credit, session, offset, acknowledged, count = _HEADER.unpack_from(data)
    try:
        known = Kind(kind)
    except ValueError:
        raise RemoteProtocolError(f"packet kind {kind} is unknown") from None
    ranges = _ranges(data, count) if count else ()
    body = data[HEADER_BYTES + count * _RANGE_BYTES :]
    if bool(body) != (known is Kind.DATA):
        raise RemoteProtocolError(f"a {known.name} packet with a body of {len(body)} bytes")
    return Packet(known, session, offset, acknowledged, ranges, credit, body)


def _ranges(data: bytes, count: int) -> tuple[Range, ...]:
    if count > limits.MAX_RANGES or HEADER_BYTES + count * _RANGE_BYTES > len(data):
        raise RemoteProtocolError(f"a packet of {len(data)} bytes with {count} ranges")
    numbers = struct.unpack_from(f"<{2 * count}H", data, HEADER_BYTES)
    return tuple((start, start + length) for start, length in zip(numbers[::2], numbers[1::2], strict=True))
