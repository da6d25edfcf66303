"""Frames: how packets stand on a byte stream that other things write to as well.

    00 | COBS( packet | CRC-32C of the packet, little-endian ) | 00

COBS (Cheshire and Baker, 1999) frees the contents of zero bytes, so a zero is always a boundary and a receiver that
lost its place finds it again at the next one. The leading zero keeps a boot log that ran into a frame out of it.
CRC-32C is Castagnoli's polynomial (RFC 3720, appendix B.4): all errors of up to 5 bits, all bursts up to 32.

What is between two zeros and is not a frame is `Foreign`: text of the device's console, or a damaged frame.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cobs import cobs
from crc32c import crc32c

from firmware_bridge import limits
from firmware_bridge.errors import LocalProtocolError

CRC_BYTES: Final = 4
MAX_ENCODED: Final = limits.MAX_PACKET + CRC_BYTES + (limits.MAX_PACKET + CRC_BYTES) // 254 + 1
"""Bytes between the zeros of the longest frame: COBS adds one byte in 254, and one."""

_PRINTABLE: Final = bytes(range(0x20, 0x7F)) + b"\t\r\n\x1b"
_TEXT_SHARE: Final = 0.85
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Packet:
    """The contents of one whole, undamaged frame."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Foreign:
    """Bytes between two boundaries that are no frame."""

    data: bytes

    def text(self) -> str | None:
        """The bytes as console text without escape sequences and control characters, or None: they are no text."""
        odd = len(self.data.translate(None, _PRINTABLE))
        if odd > (1 - _TEXT_SHARE) * len(self.data):
            return None
        return _CONTROLS.sub("", _ESCAPES.sub("", self.data.decode(errors="replace")))


def encode(packet: bytes) -> bytes:
    """The frame that carries `packet` (1 to limits.MAX_PACKET bytes), with both its zeros.

    Raises:
        LocalProtocolError: the packet is empty or too long.
    """
    if not 1 <= len(packet) <= limits.MAX_PACKET:
        raise LocalProtocolError(f"a packet of {len(packet)} bytes is outside 1..{limits.MAX_PACKET}")
    encoded: bytes = cobs.encode(packet + crc32c(packet).to_bytes(CRC_BYTES, "little"))
    return b"\0" + encoded + b"\0"


def parse(encoded: bytes) -> bytes | None:
    """The packet in what stood between two zeros, or None: it is no frame."""
    try:
        body: bytes = cobs.decode(encoded)
    except cobs.DecodeError:
        return None
    packet, crc = body[:-CRC_BYTES], body[-CRC_BYTES:]
    if not 1 <= len(packet) <= limits.MAX_PACKET or crc32c(packet).to_bytes(CRC_BYTES, "little") != crc:
        return None
    return packet


class FrameDecoder:
    """Bytes in, in any pieces; packets and foreign bytes out. Holds at most MAX_ENCODED bytes; raises nothing.

    What comes out depends on the bytes alone, not on how they were cut.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._overlong = False  # what is pending is the rest of more than a frame: foreign, whatever it holds

    @property
    def pending(self) -> int:
        """Bytes held that no boundary has ended yet."""
        return len(self._pending)

    def feed(self, data: bytes) -> list[Packet | Foreign]:
        """What these bytes complete."""
        out: list[Packet | Foreign] = []
        *ended, rest = data.split(b"\0")
        for piece in ended:
            self._extend(piece, out)
            self._end(out)
        self._extend(rest, out)
        return out

    def flush(self) -> list[Packet | Foreign]:
        """The line has been quiet for long: what is pending is no frame on its way, but text without an end."""
        if not self._pending:
            return []
        self._overlong = True
        data = bytes(self._pending)
        self._pending.clear()
        return [Foreign(data)]

    def _extend(self, piece: bytes, out: list[Packet | Foreign]) -> None:
        self._pending += piece
        while len(self._pending) > MAX_ENCODED:
            out.append(Foreign(bytes(self._pending[:MAX_ENCODED])))
            del self._pending[:MAX_ENCODED]
            self._overlong = True

    def _end(self, out: list[Packet | Foreign]) -> None:
        encoded = bytes(self._pending)
        self._pending.clear()
        overlong, self._overlong = self._overlong, False
        if not encoded:
            return
        packet = None if overlong else parse(encoded)
        out.append(Foreign(encoded) if packet is None else Packet(packet))
