import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge import limits
from firmware_bridge.errors import RemoteProtocolError
from firmware_bridge.wire.stream import MessageReader, ReceiveWindow, near, pack
from firmware_bridge.wire.window import SendWindow


@given(st.integers(0, 2**40), st.integers(-(2**31), 2**31 - 1))
def test_a_number_is_found_near_its_base(base: int, difference: int) -> None:
    assert near((base + difference) % 2**32, base) == base + difference


def test_the_receiver_orders_and_drops_duplicates() -> None:
    window = ReceiveWindow()
    assert window.accept(2, b"cd", 16) == b""
    assert window.acknowledgement() == (0, ((2, 4),))
    assert window.accept(6, b"gh", 16) == b""
    assert window.acknowledgement() == (0, ((2, 4), (6, 8)))
    assert window.accept(2, b"cd", 16) == b""
    assert window.accept(0, b"ab", 16) == b"abcd"
    assert window.acknowledgement() == (4, ((2, 4),))
    assert window.accept(0, b"ab", 16) == b""
    assert window.duplicates == 2
    assert window.accept(3, b"def", 16) == b"efgh"  # cut otherwise than the first time
    assert window.acknowledgement() == (8, ())


def test_the_receiver_takes_nothing_beyond_window_and_room() -> None:
    window = ReceiveWindow()
    assert window.accept(limits.WINDOW, b"x", 10**6) == b""
    assert window.accept(2, b"x", 2) == b""
    assert window.accept(0, b"x", 0) == b""
    assert window.accept(2**31, b"x", 100) == b""
    assert window.acknowledgement() == (0, ())


def test_an_acknowledgement_of_many_ranges_tells_the_lowest_and_the_newest() -> None:
    window, lowest = ReceiveWindow(), limits.MAX_RANGES - 1
    for number in range(50):
        window.accept(10 + 4 * number, b"xx", 10_000)
    _, told = window.acknowledgement()
    assert told == (*((10 + 4 * number, 12 + 4 * number) for number in range(lowest)), (206, 208))
    window.accept(12, b"xx", 10_000)
    _, told = window.acknowledgement()
    assert told == ((10, 16), *((14 + 4 * number, 16 + 4 * number) for number in range(1, lowest + 1)))


@given(st.data())
def test_whatever_is_cut_however_and_comes_in_any_order_is_the_stream(data: st.DataObject) -> None:
    stream = random.Random(data.draw(st.integers(0, 99))).randbytes(data.draw(st.integers(1, 300)))
    cuts = data.draw(st.lists(st.lists(st.integers(1, 299), max_size=8), min_size=1, max_size=3))
    pieces = []
    for cut in cuts:
        edges = sorted({0, len(stream), *(each for each in cut if each < len(stream))})
        pieces += [(low, stream[low:high]) for low, high in itertools.pairwise(edges)]
    window, got, start = ReceiveWindow(), b"", data.draw(st.sampled_from([0, 2**32 - 40]))
    window._expected = start
    for low, piece in data.draw(st.permutations(pieces)):
        got += window.accept((start + low) % 2**32, piece, limits.WINDOW)
    assert got == stream
    assert window.acknowledgement() == ((start + len(stream)) % 2**32, ())
    assert not window._ahead


def test_numbers_wrap() -> None:
    sender, receiver, reader = SendWindow(), ReceiveWindow(), MessageReader()
    start = 2**32 - 5
    sender._base = sender._next = start
    sender._limit = start + limits.WINDOW
    receiver._expected = start
    got = []
    for number in range(12):
        sender.put(bytes([number]))
        packet = sender.next(0.0)
        assert packet is not None
        assert 0 <= packet[0] < 2**32
        got += reader.feed(receiver.accept(*packet, 1000))
        sender.acknowledge(0.0, *receiver.acknowledgement(), limits.WINDOW)
    assert got == [bytes([number]) for number in range(12)]
    assert sender.idle


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(1, 20))
def test_messages_come_out_of_the_stream_as_they_went_in(messages: list[bytes], piece: int) -> None:
    stream = b"".join(map(pack, messages))
    reader, got = MessageReader(), []
    for at in range(0, len(stream), piece):
        got += reader.feed(stream[at : at + piece])
    assert got == messages
    assert reader.held == 0
    assert MessageReader().feed(stream) == messages


@pytest.mark.parametrize("length", [0, limits.MAX_MESSAGE + 1, 0xFFFF])
def test_a_length_that_no_message_has_is_refused(length: int) -> None:
    reader = MessageReader()
    with pytest.raises(RemoteProtocolError):
        reader.feed(pack(b"fine") + length.to_bytes(2, "little"))
