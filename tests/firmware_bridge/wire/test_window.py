import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge import limits
from firmware_bridge.wire.window import ReceiveWindow, RoundTrip, SendWindow, near


def filled(count: int = limits.OUTBOX) -> SendWindow:
    window = SendWindow()
    for number in range(count):
        window.put(bytes([number]))
    return window


def drain(window: SendWindow, now: float) -> list[int]:
    return [packet[0] for packet in iter(lambda: window.next(now), None)]


@given(st.integers(0, 2**40), st.integers(-(2**31), 2**31 - 1))
def test_a_number_is_found_near_its_base(base: int, difference: int) -> None:
    assert near((base + difference) % 2**32, base) == base + difference


def test_no_more_than_the_window_is_in_flight() -> None:
    window = filled()
    assert drain(window, 0.0) == list(range(limits.WINDOW))
    assert window.in_flight == limits.WINDOW
    window.acknowledge(0.1, 0, 0b1110, limits.WINDOW)  # 2, 3, 4 have arrived, 1 and 0 have not
    assert drain(window, 0.1) == [0, 1]
    assert window.in_flight == limits.WINDOW


def test_the_window_does_not_move_over_a_gap() -> None:
    window = filled()
    drain(window, 0.0)
    window.acknowledge(0.1, 0, 2**15 - 1, limits.WINDOW)  # all but 0
    assert drain(window, 0.1) == [0]  # lost: three sent after it have arrived
    window.acknowledge(0.2, limits.WINDOW, 0, limits.WINDOW)
    assert drain(window, 0.2) == list(range(limits.WINDOW, 2 * limits.WINDOW))
    assert window.retransmitted == 1


def test_two_later_arrivals_are_no_loss_three_are() -> None:
    window = filled(4)
    drain(window, 0.0)
    window.acknowledge(0.01, 0, 0b011, 16)
    assert not window.has_lost()
    window.acknowledge(0.01, 0, 0b111, 16)
    assert window.has_lost()


def test_credit_holds_the_sender_back() -> None:
    window = filled(10)
    drain(window, 0.0)
    window = filled(10)
    window.acknowledge(0.0, 0, 0, 0)  # a promise once given stays: 16 at the start
    assert len(drain(window, 0.0)) == 10
    window = filled(20)
    assert len(drain(window, 0.0)) == 16
    window.acknowledge(0.1, 16, 0, 2)
    assert drain(window, 0.1) == [16, 17]
    window.acknowledge(0.2, 18, 0, 0)
    assert window.starved
    assert drain(window, 0.2) == []
    window.acknowledge(0.3, 18, 0, 5)
    assert drain(window, 0.3) == [18, 19]


@pytest.mark.parametrize(("acknowledged", "selective"), [(17, 0), (2**32 - 1, 0), (2**31, 2**32 - 1)])
def test_a_senseless_acknowledgement_changes_nothing(acknowledged: int, selective: int) -> None:
    window = filled(16)
    drain(window, 0.0)
    window.acknowledge(0.1, acknowledged, selective, 16)
    assert window.in_flight == 16
    assert window.acknowledged == 0
    assert window.deadline() is not None


def test_a_timeout_sends_again_and_backs_off_once_for_all() -> None:
    window = filled(16)
    drain(window, 0.0)
    assert window.deadline() == limits.INITIAL_TIMEOUT
    window.expire(limits.INITIAL_TIMEOUT)
    assert window.fruitless == 1
    assert window.timeout == 2 * limits.INITIAL_TIMEOUT
    assert drain(window, 0.5) == list(range(16))
    window.expire(1.49)
    assert window.fruitless == 1
    window.expire(1.5)
    assert window.fruitless == 2
    window.acknowledge(1.6, 1, 0, 16)
    assert window.fruitless == 0


def test_a_retransmitted_packet_gives_no_round_trip() -> None:
    window = filled(2)
    window.next(0.0)
    window.expire(0.5)
    window.next(0.5)
    window.acknowledge(0.500001, 1, 0, 16)  # of the first or the second sending? nobody knows (Karn)
    assert window.timeout == 2 * limits.INITIAL_TIMEOUT


def test_a_slow_line_gives_packets_time_to_pass() -> None:
    window = SendWindow(11_520.0)
    for _ in range(16):
        window.put(bytes(8192))
    drain(window, 0.0)
    deadlines = sorted(flight.deadline for flight in window._flight.values())
    assert deadlines[0] >= 8192 / 11_520.0
    assert deadlines[-1] >= 16 * 8192 / 11_520.0


def test_the_timeout_follows_the_round_trip() -> None:
    trip = RoundTrip()
    for _ in range(50):
        trip.sample(0.3)
    assert trip.timeout() == pytest.approx(0.3, rel=0.05)
    for _ in range(50):
        trip.sample(0.0001)
    assert trip.timeout() == limits.MIN_TIMEOUT
    for _ in range(20):
        trip.back_off()
    assert trip.timeout() == limits.MAX_TIMEOUT
    trip.sample(0.0001)
    assert trip.timeout() == limits.MIN_TIMEOUT


def test_the_receiver_orders_and_drops_duplicates() -> None:
    window = ReceiveWindow()
    assert window.accept(1, b"b", 16) == []
    assert window.acknowledgement() == (0, 0b1)
    assert window.accept(3, b"d", 16) == []
    assert window.acknowledgement() == (0, 0b101)
    assert window.accept(1, b"b", 16) == []
    assert window.accept(0, b"a", 16) == [b"a", b"b"]
    assert window.acknowledgement() == (2, 0b1)
    assert window.accept(0, b"a", 16) == []
    assert window.duplicates == 2


def test_the_receiver_takes_nothing_beyond_window_and_room() -> None:
    window = ReceiveWindow()
    assert window.accept(limits.WINDOW, b"x", 100) == []
    assert window.accept(2, b"x", 2) == []
    assert window.acknowledgement() == (0, 0)
    assert window.accept(0, b"x", 0) == []
    assert window.accept(2**31, b"x", 100) == []
    assert window.acknowledgement() == (0, 0)


def test_numbers_wrap() -> None:
    sender, receiver = SendWindow(), ReceiveWindow()
    start = 2**32 - 5
    sender._base = sender._next = start
    sender._limit = start + 16
    receiver._expected = start
    got = []
    for number in range(12):
        sender.put(bytes([number]))
    while (packet := sender.next(0.0)) is not None:
        assert 0 <= packet[0] < 2**32
        got += receiver.accept(*packet, 16)
        sender.acknowledge(0.0, *receiver.acknowledgement(), 16)
    assert got == [bytes([number]) for number in range(12)]
    assert sender.idle
