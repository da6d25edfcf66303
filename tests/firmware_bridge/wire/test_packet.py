import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge import limits
from firmware_bridge.errors import RemoteProtocolError
from firmware_bridge.wire import packet as packets
from firmware_bridge.wire.packet import Kind, OtherVersion, Packet
from firmware_bridge.wire.version import PROTOCOL

U32 = st.integers(0, 2**32 - 1)


def test_golden_bytes() -> None:
    data = Packet(Kind.DATA, 0x1122334455667788, 2, 3, ((5, 9), (300, 301)), 0xC000, b"hi").encode()
    head = "03" + "03" + "00c0" + "8877665544332211" + "02000000" + "03000000"
    assert data.hex() == head + "02" + "05000400" + "2c010100" + b"hi".hex()
    assert Packet(Kind.OPEN, 1 << 32).encode().hex() == "03010000" + "0000000001000000" + "00" * 9


RANGES = st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1)).map(lambda pair: (pair[0], sum(pair)))
PACKETS = st.builds(
    Packet,
    st.sampled_from(Kind),
    st.integers(0, 2**64 - 1),
    U32,
    U32,
    st.lists(RANGES, max_size=limits.MAX_RANGES).map(tuple),
    st.integers(0, 2**16 - 1),
    st.just(b""),
)


@given(PACKETS, st.binary(min_size=1))
@settings(deadline=None)
def test_what_is_encoded_is_decoded(packet: Packet, body: bytes) -> None:
    packet = replace(packet, body=body if packet.kind is Kind.DATA else b"")
    assert packets.decode(packet.encode()) == packet


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes([PROTOCOL]),
        Packet(Kind.ACK, 1).encode()[:-1],
        Packet(Kind.ACK, 1).encode()[:-1] + b"\x01",
        Packet(Kind.ACK, 1, ranges=((1, 2),) * (limits.MAX_RANGES + 1)).encode(),
        Packet(Kind.ACK, 1).encode() + b"x",
        Packet(Kind.DATA, 1).encode(),
        bytes([PROTOCOL, 0]) + bytes(19),
        bytes([PROTOCOL, 8]) + bytes(19),
        Packet(Kind.DATA, 1).encode() + bytes(limits.MAX_PACKET),
    ],
)
def test_what_is_no_packet_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        packets.decode(data)


def test_another_version_is_told_by_its_first_two_bytes() -> None:
    assert packets.decode(b"\x01\x06") == OtherVersion(1, 6)
    assert packets.decode(b"\x00\x01 and whatever follows there") == OtherVersion(0, 1)


def test_any_bytes_parse_or_raise_the_remote_error() -> None:
    chance = random.Random(3)
    accepted = 0
    for _ in range(20_000):
        head = bytes([PROTOCOL, chance.randrange(9)]) + chance.randbytes(18) + bytes([chance.randrange(4)])
        data = head[: chance.randint(0, 40)] + chance.randbytes(chance.randint(0, 20))
        try:
            packets.decode(data)
        except RemoteProtocolError:
            continue
        accepted += 1
    assert 1000 < accepted < 15_000


def test_kinds_keep_their_numbers() -> None:
    assert [(kind.value, kind.name) for kind in Kind] == list(
        enumerate(("OPEN", "ACCEPT", "DATA", "ACK", "PING", "RESET", "CLOSE"), start=1)
    )
