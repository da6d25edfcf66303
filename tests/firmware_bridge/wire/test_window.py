import pytest

from firmware_bridge import limits
from firmware_bridge.wire.stream import pack
from firmware_bridge.wire.window import SendWindow

SIZE = 1000
"""Bytes of one test message in the stream, and of one packet."""


@pytest.fixture(autouse=True)
def short_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CHUNK", SIZE)
    monkeypatch.setattr(limits, "WINDOW", 16 * SIZE)


def filled(count: int) -> SendWindow:
    window = SendWindow()
    put(window, count)
    return window


def put(window: SendWindow, count: int) -> None:
    for _ in range(count):
        window.put(bytes(SIZE - 2))


def drain(window: SendWindow, now: float) -> list[int]:
    """The messages that may go now, by number; one that is sent in several packets counts once."""
    packets = list(iter(lambda: window.next(now), None))
    sent = sorted((offset, offset + len(body)) for offset, body in packets)
    numbers = sorted({start // SIZE for start, _ in sent})
    assert sum(end - start for start, end in sent) == SIZE * len(numbers)  # whole ones only
    return numbers


def ranges(*numbers: int) -> tuple[tuple[int, int], ...]:
    return tuple((number * SIZE, (number + 1) * SIZE) for number in numbers)


def test_no_more_than_the_window_is_in_flight() -> None:
    window = filled(32)
    assert (window.waiting, window.room) == (32, limits.OUTBOX - 32)
    assert drain(window, 0.0) == list(range(16))
    assert (window.waiting, window.room) == (16, limits.OUTBOX - 16)
    assert window.in_flight == limits.WINDOW
    window.acknowledge(0.1, 0, ranges(2, 3, 4), limits.WINDOW)  # 1 and 0 have not
    assert drain(window, 0.1) == [0, 1]
    assert window.in_flight == limits.WINDOW


def test_the_window_does_not_move_over_a_gap() -> None:
    window = filled(32)
    drain(window, 0.0)
    window.acknowledge(0.1, 0, ((SIZE, 16 * SIZE),), limits.WINDOW)  # all but 0
    assert drain(window, 0.1) == [0]  # lost: three sent after it have arrived
    window.acknowledge(0.2, 16 * SIZE, (), limits.WINDOW)
    assert drain(window, 0.2) == list(range(16, 32))
    assert window.sent == 33
    assert window.retransmitted == 1
    assert window.retransmitted_bytes == SIZE


def test_two_later_arrivals_are_no_loss_three_are() -> None:
    window = filled(4)
    drain(window, 0.0)
    window.acknowledge(0.01, 0, ranges(1, 2), limits.WINDOW)
    assert not window.has_lost()
    window.acknowledge(0.01, 0, ranges(1, 2, 3), limits.WINDOW)
    assert window.has_lost()


def test_what_was_only_overtaken_makes_the_next_wait_longer() -> None:
    window = filled(12)
    drain(window, 0.0)
    window.acknowledge(0.1, 0, ranges(3, 4, 5), limits.WINDOW)  # 0, 1 and 2 are given up
    window.acknowledge(0.1, 0, ranges(0, 3, 4, 5, 10), limits.WINDOW)  # but 0 was only late
    assert drain(window, 0.1) == [1, 2]  # not 6 and 7: three and four sent after them are no proof any more


def test_a_line_that_gets_quicker_is_measured() -> None:
    window = filled(2)
    window.next(0.0)
    window.acknowledge(0.4, SIZE, (), limits.WINDOW)
    assert window.timeout == pytest.approx(0.4 + 4 * 0.2)
    window.next(1.0)
    window.acknowledge(1.1, 2 * SIZE, (), limits.WINDOW)  # sent once: no doubt which sending it answers
    assert window.timeout == pytest.approx(0.3625 + 4 * (0.2 + (0.3 - 0.2) / 4))


def test_what_was_sent_again_condemns_nothing_when_its_first_sending_comes_late() -> None:
    window = filled(16)
    drain(window, 0.0)
    window.acknowledge(0.1, 0, ranges(*range(4, 12)), limits.WINDOW)
    assert drain(window, 0.1) == [0, 1, 2, 3]  # 12 to 15 are older than these, and on their way
    window.acknowledge(0.4, SIZE, ranges(*range(4, 12)), limits.WINDOW)  # 0: which sending of it, nobody knows
    assert not window.has_lost()


def test_what_a_question_has_overtaken_is_lost() -> None:
    window = filled(3)
    window.next(0.0)
    window.next(0.0)
    asked = window.orders
    assert not window.wants_probe  # nothing was lost here yet
    window.next(0.0)
    window.overtaken(asked)
    window.overtaken(asked)  # told twice, lost once
    assert window.wants_probe
    assert drain(window, 0.0) == [0, 1]


def test_what_an_acknowledgement_had_no_room_to_tell_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_RANGES", 3)
    window = filled(12)
    drain(window, 0.0)
    window.acknowledge(0.1, 0, ranges(1, 3, 11), limits.WINDOW)
    window.overtaken(window.orders)
    assert drain(window, 0.1) == [0, 2]  # of 4 to 10 nothing was said


def test_messages_share_a_packet() -> None:
    window = SendWindow()
    for text in (b"one", b"two", b"three"):
        window.put(text)
    assert window.next(0.0) == (0, pack(b"one") + pack(b"two") + pack(b"three"))
    assert window.next(0.0) is None
    assert not window.idle
    window.acknowledge(0.0, 17, (), limits.WINDOW)
    assert window.idle


def test_a_long_message_takes_several_packets() -> None:
    window = SendWindow()
    message = bytes(range(250)) * 10
    window.put(message)
    bodies = [body for _, body in iter(lambda: window.next(0.0), None)]
    assert [len(body) for body in bodies] == [1000, 1000, 502]
    assert b"".join(bodies) == pack(message)


def test_what_is_lost_goes_again_in_shorter_packets() -> None:
    window = filled(1)
    window.next(0.0)
    for _ in range(20):
        window.frame_size.lost(SIZE)
    window.expire(5.0)
    size = window.frame_size.best()
    assert size < SIZE // 2
    again = list(iter(lambda: window.next(5.0), None))
    assert again[0] == (0, pack(bytes(SIZE - 2))[:size])
    assert b"".join(body for _, body in again) == pack(bytes(SIZE - 2))
    assert [offset for offset, _ in again] == [sum(len(body) for _, body in again[:n]) for n in range(len(again))]
    assert len(again[-1][1]) >= size // 4  # no crumbs
    window.acknowledge(5.1, 0, ((size, SIZE),), limits.WINDOW)
    window.overtaken(window.orders)
    assert window.next(5.1) == again[0]
    window.acknowledge(5.2, SIZE, (), limits.WINDOW)
    assert window.idle


def test_credit_holds_the_sender_back() -> None:
    window = filled(10)
    window.acknowledge(0.0, 0, (), 0)  # a promise once given stays: the window at the start
    assert len(drain(window, 0.0)) == 10
    window = filled(20)
    assert len(drain(window, 0.0)) == 16
    window.acknowledge(0.1, 16 * SIZE, (), 2 * SIZE)
    assert drain(window, 0.1) == [16, 17]
    window.acknowledge(0.2, 18 * SIZE, (), 0)
    assert window.starved
    assert drain(window, 0.2) == []
    window.acknowledge(0.3, 18 * SIZE, (), SIZE + 10)
    assert not window.starved
    assert drain(window, 0.3) == [18]  # the ten bytes are not worth a packet while an acknowledgement is to come
    window.acknowledge(0.4, 19 * SIZE, (), 10)
    assert window.next(0.4) == (19 * SIZE, pack(bytes(SIZE - 2))[:10])  # but better than nothing


@pytest.mark.parametrize("acknowledged", [16 * SIZE + 1, 2**32 - 1, 2**31])
def test_a_senseless_acknowledgement_changes_nothing(acknowledged: int) -> None:
    window = filled(16)
    drain(window, 0.0)
    window.acknowledge(0.1, acknowledged, ((0, 65535),), limits.WINDOW)
    assert window.in_flight == 16 * SIZE
    assert window.acknowledged == 0
    assert window.deadline() is not None


def test_an_acknowledgement_in_mid_packet_leaves_the_rest() -> None:
    window = filled(2)
    drain(window, 0.0)
    window.acknowledge(0.1, 400, (), limits.WINDOW)
    assert window.acknowledged == 400
    window.overtaken(window.orders)
    sent = [(offset, offset + len(body)) for offset, body in iter(lambda: window.next(0.1), None)]
    assert (sent[0][0], sent[-1][1], sum(end - start for start, end in sent)) == (400, 2000, 1600)
    window.overtaken(window.orders)
    window.acknowledge(0.2, 500, (), limits.WINDOW)
    assert window.next(0.2) is not None
    window.acknowledge(0.3, 2000, (), limits.WINDOW)
    assert window.idle
    assert window._outstanding == 0


def test_a_timeout_sends_again_and_backs_off_once_for_all() -> None:
    window = filled(16)
    drain(window, 0.0)
    assert window.deadline() == limits.INITIAL_TIMEOUT
    window.expire(limits.INITIAL_TIMEOUT)
    assert window.fruitless == 1
    assert window.timeout == 2 * limits.INITIAL_TIMEOUT
    sent = list(iter(lambda: window.next(0.5), None))
    assert sum(len(body) for _, body in sent) == 16 * SIZE
    window.expire(1.49)
    assert window.fruitless == 1
    window.expire(1.5)
    assert window.fruitless == 2
    window.acknowledge(1.6, SIZE, (), limits.WINDOW)
    assert window.fruitless == 0


def test_a_retransmitted_packet_gives_no_round_trip() -> None:
    window = filled(1)
    window.next(0.0)
    window.expire(0.5)
    while window.next(0.5) is not None:
        pass
    window.acknowledge(0.500001, SIZE, (), limits.WINDOW)  # of the first or the second sending? nobody knows (Karn)
    assert window.timeout == 2 * limits.INITIAL_TIMEOUT


def test_a_slow_line_gives_packets_time_to_pass() -> None:
    window = SendWindow(1_152.0)
    put(window, 16)
    drain(window, 0.0)
    deadlines = sorted(flight.deadline for flight in window._flight.values())
    assert deadlines[0] >= SIZE / 1_152.0
    assert deadlines[-1] >= 16 * SIZE / 1_152.0
    window.set_rate(None)
    window.acknowledge(1.0, 16 * SIZE, (), limits.WINDOW)
    put(window, 1)
    drain(window, 1.0)
    assert window.deadline() == 1.0 + window.timeout
