"""The messages of one direction as one stream of bytes, and the receiver's window over it.

In the stream a message is its length (2 bytes, little-endian, 1 to limits.MAX_MESSAGE) and its bytes. Bytes are
numbered from 0, on the wire modulo 2**32.
"""

from __future__ import annotations

from typing import Final

from firmware_bridge import limits
from firmware_bridge.errors import RemoteProtocolError
from firmware_bridge.wire.packet import Range

MODULUS: Final = 2**32
LENGTH_BYTES: Final = 2


def near(wire: int, base: int) -> int:
    """The full number that `wire`, its low 32 bits, means near `base`."""
    half = MODULUS // 2
    return base + (wire - base + half) % MODULUS - half


def pack(message: bytes) -> bytes:
    """A message as it stands in the stream."""
    return len(message).to_bytes(LENGTH_BYTES, "little") + message


class ReceiveWindow:
    """What has arrived out of order, and the acknowledgement that says so. Holds at most limits.WINDOW bytes."""

    def __init__(self) -> None:
        self._expected = 0
        self._ahead = bytearray()  # the stream from `expected` on; only what lies in a range means anything
        self._ranges: list[Range] = []  # absolute, sorted, apart from each other, all after `expected`
        self._newest = 0
        self.duplicates = 0
        """Packets dropped because all of it had arrived before."""

    def accept(self, offset: int, body: bytes, room: int) -> bytes:
        """The bytes that this packet brings into order; none if it is early, known, or reaches beyond `room`."""
        start = near(offset, self._expected)
        end = start + len(body)
        if end <= self._expected or any(low <= start and end <= high for low, high in self._ranges):
            self.duplicates += 1
            return b""
        if end > self._expected + min(room, limits.WINDOW):
            return b""
        if start < self._expected:
            body = body[self._expected - start :]
            start = self._expected
        if start == self._expected and not self._ranges:
            self._expected = end
            return body
        self._hold(start, end, body)
        low, high = self._ranges[0]
        if low > self._expected:
            return b""
        del self._ranges[0]
        ready = bytes(self._ahead[: high - self._expected])
        del self._ahead[: high - self._expected]
        self._expected = high
        return ready

    def acknowledgement(self) -> tuple[int, tuple[Range, ...]]:
        """(byte expected next modulo 2**32, what is here after it): the lowest ranges; if not all fit, the newest too.

        Where as many as fit are told, all up to the last but one are, without a gap in the telling.
        """
        told = self._ranges[: limits.MAX_RANGES]
        if len(self._ranges) > limits.MAX_RANGES:
            newest = [each for each in self._ranges if each[0] <= self._newest < each[1]]
            told = told if not newest or newest[0] in told else [*told[:-1], *newest]
        base = self._expected
        return base % MODULUS, tuple((start - base, end - base) for start, end in told)

    def _hold(self, start: int, end: int, body: bytes) -> None:
        at = start - self._expected
        if len(self._ahead) < at + len(body):
            self._ahead.extend(bytes(at + len(body) - len(self._ahead)))
        self._ahead[at : at + len(body)] = body
        self._newest = start
        touching = [each for each in self._ranges if each[0] <= end and start <= each[1]]
        apart = [each for each in self._ranges if not (each[0] <= end and start <= each[1])]
        low = min([start, *(each[0] for each in touching)])
        high = max([end, *(each[1] for each in touching)])
        self._ranges = sorted([*apart, (low, high)])


class MessageReader:
    """Cuts the stream into messages again. Holds less than one message."""

    def __init__(self) -> None:
        self._partial = bytearray()

    @property
    def held(self) -> int:
        """Bytes of a message that is not yet whole."""
        return len(self._partial)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that these bytes complete.

        Raises:
            RemoteProtocolError: the stream says that a message has a length it cannot have; never another error.
        """
        self._partial += data
        messages = []
        at = 0
        while len(self._partial) - at >= LENGTH_BYTES:
            begin = at + LENGTH_BYTES
            length = int.from_bytes(self._partial[at:begin], "little")
            if not 1 <= length <= limits.MAX_MESSAGE:
                raise RemoteProtocolError(f"a message of {length} bytes in the stream")
            if len(self._partial) < begin + length:
                break
            at = begin + length
            messages.append(bytes(self._partial[begin:at]))
        del self._partial[:at]
        return messages
