"""Packets: the header of the reliable layer, one struct for every kind. Byte table: PROTOCOL.md."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from firmware_bridge import limits
from firmware_bridge.errors import RemoteProtocolError
from firmware_bridge.wire.version import PROTOCOL

_HEADER: Final = struct.Struct("<BBHQIII")
HEADER_BYTES: Final = _HEADER.size


class Kind(enum.IntEnum):
    """What a packet is for."""

    OPEN = 1
    """Host: begin a session; `session` holds the host's epoch in its upper half."""
    ACCEPT = 2
    """Device: the session is ready; `session` holds both epochs."""
    DATA = 3
    """One message, numbered by `sequence`."""
    ACK = 4
    """Nothing but the acknowledgement that every packet carries."""
    PING = 5
    """Are you there? Answered by an ACK."""
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
        sequence: number of a DATA packet, from 0, modulo 2**32; 0 in others.
        acknowledged: the number that the sender expects next: everything before it has arrived.
        selective: bit n: number `acknowledged + 1 + n` has arrived too.
        credit: packets from `acknowledged` on that the sender has room for.
        body: the message of a DATA packet; empty in others.
    """

    kind: Kind
    session: int
    sequence: int = 0
    acknowledged: int = 0
    selective: int = 0
    credit: int = 0
    body: bytes = b""

    def encode(self) -> bytes:
        """The packet's bytes."""
        header = _HEADER.pack(
            PROTOCOL, self.kind, self.credit, self.session, self.sequence, self.acknowledged, self.selective
        )
        return header + self.body


@dataclass(frozen=True, slots=True)
class OtherVersion:
    """A packet of another version of the protocol. Its first two bytes are version and kind in every version."""

    version: int
    kind: int


def decode(data: bytes) -> Packet | OtherVersion:
    """The packet in these bytes.

    Raises:
        RemoteProtocolError: too short, of no known kind, or a body where none belongs; never another error.
    """
    if len(data) < 2:
        raise RemoteProtocolError(f"a packet of {len(data)} bytes")
    if data[0] != PROTOCOL:
        return OtherVersion(data[0], data[1])
    if not HEADER_BYTES <= len(data) <= limits.MAX_PACKET:
        raise RemoteProtocolError(f"a packet of {len(data)} bytes")
    _, kind, credit, session, sequence, acknowledged, selective = _HEADER.unpack_from(data)
    try:
        known = Kind(kind)
    except ValueError:
        raise RemoteProtocolError(f"packet kind {kind} is unknown") from None
    body = data[HEADER_BYTES:]
    if bool(body) != (known is Kind.DATA):
        raise RemoteProtocolError(f"a {known.name} packet with a body of {len(body)} bytes")
    return Packet(known, session, sequence, acknowledged, selective, credit, body)
