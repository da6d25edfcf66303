import random
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge import limits
from firmware_bridge.errors import LocalProtocolError
from firmware_bridge.testing.faulty import BOOT_LOG
from firmware_bridge.wire import frame
from firmware_bridge.wire.frame import Foreign, FrameDecoder, Packet

LINES = [
    b"U-Boot 2024.01 (Jan 01 2024)\r\n",
    b"\x1b[1;31merror\x1b[0m: panic\n",
    bytes(range(1, 256)),
    b"\x00",
    b"\x00\x00",
]


def packets(events: list[Packet | Foreign]) -> list[bytes]:
    return [event.data for event in events if isinstance(event, Packet)]


def test_golden_bytes() -> None:
    # CRC-32C of "123456789" is 0xe3069283 (RFC 3720's check value)
    assert frame.encode(b"123456789") == b"\x00" + b"\x0e123456789\x83\x92\x06\xe3" + b"\x00"
    assert frame.encode(b"\x00") == bytes.fromhex("00 01 05 51 53 7d 52 00")


@given(st.binary(min_size=1, max_size=2000))
@settings(deadline=None)
def test_a_frame_holds_its_packet_and_no_zero_inside(packet: bytes) -> None:
    encoded = frame.encode(packet)
    assert encoded[0] == encoded[-1] == 0
    assert 0 not in encoded[1:-1]
    assert FrameDecoder().feed(encoded) == [Packet(packet)]


@pytest.mark.parametrize("size", [1, 253, 254, 255, limits.MAX_PACKET])
@pytest.mark.parametrize("fill", [b"\x00", b"\x01", b"\xff"])
def test_every_size_up_to_the_bound_passes(size: int, fill: bytes) -> None:
    encoded = frame.encode(fill * size)
    assert len(encoded) <= frame.MAX_ENCODED + 2
    if size == limits.MAX_PACKET and fill != b"\0":
        assert len(encoded) == frame.MAX_ENCODED + 2, "the bound is the longest frame's length, not more"
    assert FrameDecoder().feed(encoded) == [Packet(fill * size)]


@pytest.mark.parametrize("packet", [b"", bytes(limits.MAX_PACKET + 1)])
def test_packets_out_of_bounds_are_not_framed(packet: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        frame.encode(packet)


@given(
    st.lists(st.one_of(st.binary(min_size=1, max_size=300).map(frame.encode), st.sampled_from(LINES)), max_size=12),
    st.lists(st.integers(0, 4000), max_size=20),
    st.binary(max_size=20),
)
@settings(max_examples=300, deadline=None)
def test_the_cuts_do_not_matter(pieces: list[bytes], cuts: list[int], trailing: bytes) -> None:
    stream = b"".join(pieces) + trailing
    whole = FrameDecoder().feed(stream)
    bytewise, cut = FrameDecoder(), FrameDecoder()
    assert [event for byte in stream for event in bytewise.feed(bytes([byte]))] == whole
    bounds = [0, *sorted(min(at, len(stream)) for at in cuts), len(stream)]
    assert [event for a, b in pairwise(bounds) for event in cut.feed(stream[a:b])] == whole


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.sampled_from(LINES)), max_size=10))
@settings(max_examples=200, deadline=None)
def test_what_is_between_frames_harms_none(pairs: list[tuple[bytes, bytes]]) -> None:
    stream = b"".join(line + frame.encode(packet) for packet, line in pairs)
    assert packets(FrameDecoder().feed(stream)) == [packet for packet, _ in pairs]


def test_console_text_comes_out_clean() -> None:
    events = FrameDecoder().feed(frame.encode(b"a") + BOOT_LOG + frame.encode(b"b"))
    assert [type(event) for event in events] == [Packet, Foreign, Packet]
    assert events[1].text() == "\n[    0.000000] Booting Linux on physical CPU 0x0\n"


def test_text_is_told_from_damage() -> None:
    assert Foreign(b"temperature: 61 C\n").text() == "temperature: 61 C\n"
    assert Foreign("Gerät bereit\n".encode()).text() == "Gerät bereit\n"
    assert Foreign(b"\x1b]0;title\x07shell$ ").text() == "shell$ "
    assert Foreign(random.Random(1).randbytes(500)).text() is None


def test_a_frame_cut_short_costs_only_itself() -> None:
    decoder = FrameDecoder()
    damaged = frame.encode(b"first")[:-3]
    assert packets(decoder.feed(damaged + frame.encode(b"second"))) == [b"second"]


def test_no_damaged_frame_is_accepted() -> None:
    chance = random.Random(11)
    originals = [chance.randbytes(chance.choice([1, 24, 60, 300, 1500])) for _ in range(50)]
    decoder, begun, refused = FrameDecoder(), time.process_time(), 0
    for number in range(100_000):
        packet = originals[number % len(originals)]
        encoded = bytearray(frame.encode(packet))
        match number % 4:
            case 0:  # bit errors, the zeros too
                for _ in range(chance.randint(1, 8)):
                    encoded[chance.randrange(len(encoded))] ^= 1 << chance.randrange(8)
            case 1:  # a burst
                at = chance.randrange(len(encoded))
                encoded[at : at + chance.randint(1, 16)] = chance.randbytes(chance.randint(1, 16))
            case 2:  # bytes lost inside
                at = chance.randrange(1, len(encoded) - 1)
                del encoded[at : at + chance.randint(1, 8)]
            case 3:  # two frames spliced
                other = frame.encode(originals[chance.randrange(len(originals))])
                encoded[len(encoded) // 2 :] = other[len(other) // 2 :]
        accepted = packets(decoder.feed(bytes(encoded)))
        accepted += packets(decoder.feed(b"\x00"))
        refused += not accepted
        for data in accepted:  # only what the damage left whole, between boundaries
            assert data in originals, number
            assert frame.encode(data)[1:-1] in bytes(encoded), number
    assert refused > 80_000
    assert time.process_time() - begun < 20


def test_garbage_does_not_fill_memory() -> None:
    decoder = FrameDecoder()
    garbage = bytes(range(1, 256)) * 64
    total = 0
    for _ in range(400):  # 6.5 MB without a zero
        events = decoder.feed(garbage)
        total += sum(len(event.data) for event in events)
        assert all(isinstance(event, Foreign) for event in events)
        assert decoder.pending <= frame.MAX_ENCODED
    # the rest of the overlong piece is foreign too, even if it looks like a frame
    assert packets(decoder.feed(frame.encode(b"x"))) == [b"x"]
    assert total > 400 * len(garbage) - 2 * frame.MAX_ENCODED


def test_the_rest_of_an_overlong_piece_is_no_frame() -> None:
    decoder = FrameDecoder()
    inner = frame.encode(b"hidden")[1:-1]
    events = decoder.feed(b"x" * frame.MAX_ENCODED + inner + b"\0")
    assert packets(events) == []
    assert b"".join(event.data for event in events) == b"x" * frame.MAX_ENCODED + inner


def test_flushed_text_is_foreign_and_so_is_what_follows_it() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(b"login: ") == []
    assert decoder.flush() == [Foreign(b"login: ")]
    assert decoder.flush() == []
    assert decoder.feed(b"root") == []
    assert decoder.feed(frame.encode(b"x")) == [Foreign(b"root"), Packet(b"x")]


@given(st.binary(max_size=3000))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_taken(data: bytes) -> None:
    decoder = FrameDecoder()
    events = decoder.feed(data)
    for event in events:
        assert isinstance(event, Foreign | Packet)
        if isinstance(event, Foreign):
            text = event.text()
            assert text is None or "\x1b" not in text
