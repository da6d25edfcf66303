import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.errors import RemoteProtocolError
from firmware_bridge.wire import packet as packets
from firmware_bridge.wire.packet import Kind, OtherVersion, Packet

U32 = st.integers(0, 2**32 - 1)


def test_golden_bytes() -> None:
    data = Packet(Kind.DATA, 0x1122334455667788, 2, 3, 5, 16, b"hi").encode()
    assert data.hex() == "01" + "03" + "1000" + "8877665544332211" + "02000000" + "03000000" + "05000000" + b"hi".hex()
    assert Packet(Kind.OPEN, 1 << 32).encode().hex() == "01010000" + "0000000001000000" + "00" * 12


PACKETS = st.builds(
    Packet, st.sampled_from(Kind), st.integers(0, 2**64 - 1), U32, U32, U32, st.integers(0, 2**16 - 1), st.just(b"")
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
        b"\x01",
        Packet(Kind.ACK, 1).encode()[:-1],
        Packet(Kind.ACK, 1).encode() + b"x",
        Packet(Kind.DATA, 1).encode(),
        b"\x01\x00" + bytes(22),
        b"\x01\x08" + bytes(22),
        Packet(Kind.DATA, 1).encode() + bytes(packets.limits.MAX_PACKET),
    ],
)
def test_what_is_no_packet_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        packets.decode(data)


def test_another_version_is_told_by_its_first_two_bytes() -> None:
    assert packets.decode(b"\x02\x06") == OtherVersion(2, 6)
    assert packets.decode(b"\x00\x01 and whatever follows there") == OtherVersion(0, 1)


def test_any_bytes_parse_or_raise_the_remote_error() -> None:
    chance = random.Random(3)
    accepted = 0
    for _ in range(20_000):
        data = b"\x01" + chance.randbytes(chance.randint(0, 40))
        try:
            packets.decode(data)
        except RemoteProtocolError:
            continue
        accepted += 1
    assert 0 < accepted < 10_000
