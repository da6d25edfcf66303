import random
from collections.abc import Callable, Sequence

import pytest

from firmware_bridge import limits
from firmware_bridge.errors import LocalProtocolError
from firmware_bridge.testing.faulty import Faults
from firmware_bridge.testing.pair import End, Pair
from firmware_bridge.wire import messages as m
from firmware_bridge.wire.connection import Connection, Received
from firmware_bridge.wire.packet import Kind, OtherVersion, Packet, decode
from firmware_bridge.wire.session import Delivered, Lost, Opened, Session, random_epoch
from firmware_bridge.wire.states import Ending, Role, State
from firmware_bridge.wire.stream import pack

CLEAN = Faults()
BAD = Faults(loss=0.1, duplication=0.05, reordering=0.1, bit_errors=1e-5, boot_log=0.02)


def counter(start: int) -> Callable[[], int]:
    values = iter(range(start, start + 100_000))
    return lambda: next(values)


class Talker:
    """One end that sends a list of messages as fast as it may and records what it gets."""

    def __init__(self, role: Role, outgoing: Sequence[m.Message], epoch: int) -> None:
        self.connection = Connection(role, epoch=counter(epoch))
        self.outgoing = list(outgoing)
        self.position = 0
        self.got = []
        self.endings = []
        self.opened = 0
        self.most_in_flight = 0

    def work(self) -> None:
        while (event := self.connection.next_event()) is not None:
            match event:
                case Received(message):
                    self.got.append(message)
                case Opened():
                    self.opened += 1
                case Lost(why):
                    self.endings.append(why)
        while self.connection.room and self.position < len(self.outgoing):
            self.connection.send(self.outgoing[self.position])
            self.position += 1
        sending = self.connection.session.sending
        self.most_in_flight = max(self.most_in_flight, sending.in_flight)

    def end(self) -> End:
        return End(self.connection, self.work)


def chunks(count: int, seed: int, size: int = 1500) -> list[m.Message]:
    chance = random.Random(seed)
    return [m.JobPayload(number, number, chance.randbytes(chance.randint(1, size))) for number in range(count)]


def pair(
    seed: int = 0, faults: Faults = CLEAN, to_device: Sequence[m.Message] = (), to_host: Sequence[m.Message] = ()
) -> tuple[Talker, Talker, Pair]:
    host = Talker(Role.HOST, to_device, 100)
    device = Talker(Role.DEVICE, to_host, 500)
    host.connection.session.open(0.0)
    return host, device, Pair(host.end(), device.end(), faults, seed)


@pytest.mark.parametrize("seed", range(150))
def test_everything_arrives_once_and_in_order_over_a_bad_line(seed: int) -> None:
    host, device, line = pair(seed, BAD, chunks(120, seed), chunks(80, -seed))
    done = line.run(lambda: (len(host.got), len(device.got)) == (80, 120), 600.0)
    assert done, f"seed {seed}: {len(device.got)} of 120 there, {len(host.got)} of 80 back"
    assert device.got == host.outgoing
    assert host.got == device.outgoing
    assert host.most_in_flight <= limits.WINDOW
    assert device.most_in_flight <= limits.WINDOW
    assert (host.endings, device.endings) == ([], [])
    assert host.connection.session.sending.retransmitted > 0


def test_the_same_seed_gives_the_same_run() -> None:
    ends = []
    for _ in range(2):
        host, device, line = pair(7, BAD, chunks(50, 1))
        assert line.run(lambda device=device: len(device.got) == 50, 600.0)
        ends.append((line.now, host.connection.session.sending.sent))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("seed", range(3))
def test_frames_shrink_on_a_line_whose_bit_errors_break_every_long_one(seed: int) -> None:
    host, device, line = pair(seed, Faults(bit_errors=1e-4), chunks(100, 1, size=limits.CHUNK))
    assert line.run(lambda: len(device.got) == 100, 600.0)
    assert device.got == host.outgoing
    sending = host.connection.session.sending
    assert sending.frame_size.best() < 500
    assert sending.retransmitted_bytes < 0.6 * sending.acknowledged
    line.to_device.faults = line.to_host.faults = CLEAN
    host.outgoing += chunks(400, 2, size=limits.CHUNK)
    assert line.run(lambda: len(device.got) == 500, 600.0)
    assert sending.frame_size.best() == limits.CHUNK  # and grow again when it heals


def test_a_lost_last_packet_is_found_by_a_question_not_by_its_timeout() -> None:
    host, device = open_pair()
    host.sending.frame_size.lost(1000)  # the line is known to lose
    host.send(b"lost")
    assert decode(host.next_packet(0.0)).kind is Kind.DATA
    question = host.next_packet(0.0)
    assert decode(question).kind is Kind.PING
    assert host.next_packet(0.0) is None  # one question for all that is on its way
    device.receive(0.01, question)
    answer = device.next_packet(0.01)
    assert decode(answer).offset == decode(question).offset
    host.receive(0.02, answer)
    again = decode(host.next_packet(0.02))
    assert again.body == pack(b"lost")
    assert host.sending.fruitless == 0


def test_a_stream_that_says_nonsense_ends_the_session() -> None:
    host, device = open_pair()
    device.receive(0.0, Packet(Kind.DATA, device.number, credit=9, body=b"\0\0").encode())
    event = device.next_event()
    assert isinstance(event, Lost)
    assert event.why is Ending.VIOLATION
    host.receive(0.0, device.next_packet(0.0))
    assert host.next_event() == Lost(Ending.CLOSED)


def test_a_lost_link_ends_the_session_once() -> None:
    host, _ = open_pair()
    host.link_lost()
    host.link_lost()
    assert host.next_event() == Lost(Ending.LINK)
    assert host.next_event() is None


def test_a_clean_line_needs_no_retransmission() -> None:
    host, device, line = pair(0, CLEAN, chunks(500, 1), chunks(300, 2))
    assert line.run(lambda: (len(host.got), len(device.got)) == (300, 500), 60.0)
    assert host.connection.session.sending.retransmitted == 0
    assert device.connection.session.sending.retransmitted == 0
    assert line.now < 1.0


def test_ten_percent_loss_costs_at_most_a_third_of_the_packets() -> None:
    host, device, line = pair(3, Faults(loss=0.1), chunks(1000, 1, size=100))
    assert line.run(lambda: len(device.got) == 1000, 600.0)
    sending = host.connection.session.sending
    assert sending.retransmitted_bytes < sending.acknowledged / 3


def test_a_device_that_restarts_is_noticed_and_a_new_session_is_clean() -> None:
    host, device, line = pair(2, CLEAN, chunks(400, 1))
    assert line.run(lambda: len(device.got) >= 100, 60.0)
    reborn = Talker(Role.DEVICE, [], 900)
    line.device = reborn.end()
    assert line.run(lambda: host.endings == [Ending.RESET], 60.0)
    host.outgoing, host.position = chunks(20, 9), 0
    host.connection.session.open(line.now)
    assert line.run(lambda: len(reborn.got) == 20, 60.0)
    assert reborn.got == host.outgoing  # nothing of the first session
    assert (host.opened, reborn.opened) == (2, 1)


def test_a_host_that_restarts_replaces_its_session() -> None:
    _, device, line = pair(2, CLEAN, chunks(400, 1), chunks(400, 3))
    assert line.run(lambda: len(device.got) >= 100, 60.0)
    before = len(device.got)
    reborn = Talker(Role.HOST, chunks(20, 9), 100_000)
    reborn.connection.session.open(line.now)
    line.host = reborn.end()
    device.outgoing, device.position = [], 0
    assert line.run(lambda: device.endings == [Ending.REPLACED] and device.opened == 2, 60.0)
    assert line.run(lambda: device.got[-20:] == reborn.outgoing, 60.0)
    assert len(device.got) <= before + limits.WINDOW // 100 + 20


@pytest.mark.parametrize("seed", range(40))
def test_restarts_over_a_bad_line_leave_a_clean_session(seed: int) -> None:
    _, device, line = pair(seed, BAD, chunks(400, 1))
    assert line.run(lambda: len(device.got) >= 50, 600.0)
    for round_ in range(3):
        reborn = Talker(Role.HOST, chunks(30, round_), 10_000 * (round_ + 1))
        reborn.connection.session.open(line.now)
        line.host = reborn.end()
        assert line.run(lambda wanted=reborn.outgoing: device.got[-30:] == wanted, 600.0), (seed, round_)
        assert reborn.endings == []


def test_nobody_there_is_noticed() -> None:
    host, _, line = pair(0, Faults(loss=1.0))
    assert line.run(lambda: bool(host.endings), 60.0)
    assert host.endings == [Ending.UNANSWERED]
    assert line.now == pytest.approx(limits.OPEN_ATTEMPTS * limits.INITIAL_TIMEOUT, abs=1.0)


@pytest.mark.parametrize("messages", [0, 40])
def test_a_cut_cable_is_noticed_by_both_ends_that_send(messages: int) -> None:
    host, device, line = pair(0, CLEAN, [], [])
    assert line.run(lambda: host.opened == device.opened == 1, 5.0)
    cut = Faults(loss=1.0)
    line.to_device.faults = line.to_host.faults = cut
    host.outgoing = chunks(messages, 1)
    device.outgoing = chunks(messages, 1)
    started = line.now
    assert line.run(lambda: bool(host.endings), 120.0)
    assert host.endings[0] in ({Ending.TIMEOUT, Ending.SILENT} if messages else {Ending.SILENT})
    assert line.now - started < 60
    if messages:
        assert line.run(lambda: device.endings == [Ending.TIMEOUT], 120.0)


def test_a_line_that_comes_back_goes_on_where_it_was() -> None:
    host, device, line = pair(0, CLEAN, chunks(600, 1))
    assert line.run(lambda: len(device.got) > 50, 5.0)
    line.to_device.faults = line.to_host.faults = Faults(loss=1.0)
    line.run(lambda: False, 8.0)
    line.to_device.faults = line.to_host.faults = CLEAN
    assert line.run(lambda: len(device.got) == 600, 30.0)
    assert device.got == host.outgoing
    assert host.endings == []


def test_an_idle_session_stays_open() -> None:
    host, device, line = pair()
    line.run(lambda: False, 600.0)
    assert host.connection.is_open
    assert device.connection.is_open
    assert (host.endings, device.endings) == ([], [])


def test_a_suspended_host_keeps_its_session() -> None:
    host, device, line = pair()
    assert line.run(lambda: host.opened == device.opened == 1, 5.0)
    line.now += 3600.0
    line.run(lambda: False, 30.0)
    assert host.connection.is_open
    assert host.endings == []


def test_a_peer_that_takes_nothing_holds_the_sender_back_without_loss() -> None:
    host, device, line = pair(0, CLEAN, chunks(200, 1))
    assert line.run(lambda: device.opened == 1, 5.0)
    line.device = End(device.connection, lambda: None)  # alive, but takes no message
    line.run(lambda: False, 120.0)
    assert device.connection.session._undelivered <= limits.WINDOW
    assert host.endings == []  # it is asked, and answers
    assert sum(len(m.encode(each)) for each in host.outgoing[: host.position]) <= limits.WINDOW + 34 * 1600
    line.device = device.end()
    assert line.run(lambda: len(device.got) == 200, 30.0)
    assert device.got == host.outgoing


def test_a_goodbye_ends_the_other_end_at_once() -> None:
    host, device, line = pair()
    assert line.run(lambda: device.opened == 1, 5.0)
    host.connection.session.close()
    line.run(lambda: False, 0.1)
    assert device.endings == [Ending.CLOSED]
    assert not host.connection.is_open


# ---------------------------------------------------------------------- packet by packet


def open_pair() -> tuple[Session, Session]:
    host, device = Session(Role.HOST, epoch=counter(1)), Session(Role.DEVICE, epoch=counter(50))
    host.open(0.0)
    device.receive(0.0, host.next_packet(0.0))
    host.receive(0.0, device.next_packet(0.0))
    device.receive(0.0, host.next_packet(0.0))
    assert isinstance(host.next_event(), Opened)
    assert isinstance(device.next_event(), Opened)
    return host, device


def test_the_opening() -> None:
    host, device = Session(Role.HOST, epoch=counter(1)), Session(Role.DEVICE, epoch=counter(50))
    assert (host.state, device.state) == (State.IDLE, State.IDLE)
    assert host.next_packet(0.0) is None
    assert host.deadline() is None
    host.open(0.0)
    opening = host.next_packet(0.0)
    assert decode(opening) == Packet(Kind.OPEN, 1 << 32)
    assert host.next_packet(0.0) is None
    assert host.deadline() == limits.INITIAL_TIMEOUT
    device.receive(0.0, opening)
    accept = device.next_packet(0.0)
    assert decode(accept) == Packet(Kind.ACCEPT, 1 << 32 | 50)
    assert device.state is State.IDLE  # until the host uses it
    device.receive(0.0, opening)
    assert device.next_packet(0.0) == accept  # the same opening, the same session
    host.receive(0.1, accept)
    assert host.next_event() == Opened(1 << 32 | 50)
    confirm = host.next_packet(0.1)
    assert decode(confirm).kind is Kind.ACK
    device.receive(0.1, confirm)
    assert device.next_event() == Opened(1 << 32 | 50)
    device.receive(0.2, opening)
    assert device.next_packet(0.2) == accept
    assert device.state is State.OPEN


def test_epochs_are_drawn_from_all_of_32_bits() -> None:
    drawn = {random_epoch() for _ in range(64)}
    assert len(drawn) > 60
    assert min(drawn) >= 1
    assert 2**28 < max(drawn) < 2**32


def test_a_stale_opening_does_not_break_a_session() -> None:
    host, device = open_pair()
    device.receive(1.0, Packet(Kind.OPEN, 77 << 32).encode())
    assert decode(device.next_packet(1.0)).session == 77 << 32 | 51
    host.receive(1.0, Packet(Kind.ACCEPT, 77 << 32 | 51).encode())
    host.send(b"still here")
    device.receive(1.0, host.next_packet(1.0))
    assert device.next_event() == Delivered(b"still here")


def test_packets_of_another_session_are_reset_by_the_device_and_dropped_by_the_host() -> None:
    host, device = open_pair()
    stale = Packet(Kind.DATA, 9 << 32 | 9, body=pack(b"old")).encode()
    device.receive(1.0, stale)
    assert decode(device.next_packet(1.0)) == Packet(Kind.RESET, 9 << 32 | 9)
    assert device.next_event() is None
    host.receive(1.0, stale)
    host.receive(1.0, Packet(Kind.RESET, 9 << 32 | 9).encode())
    assert host.next_event() is None
    assert host.next_packet(1.0) is None
    assert host.ignored == 2
    for kind in (Kind.RESET, Kind.CLOSE, Kind.ACCEPT):
        device.receive(1.0, Packet(kind, 9 << 32 | 9).encode())
    assert device.next_packet(1.0) is None  # no answer to an answer


def test_another_version_is_named_to_the_host() -> None:
    device = Session(Role.DEVICE)
    device.receive(0.0, b"\x09\x01" + bytes(30))
    assert decode(device.next_packet(0.0)).kind is Kind.RESET
    host = Session(Role.HOST)
    host.open(0.0)
    host.receive(0.0, b"\x09\x06")
    event = host.next_event()
    assert isinstance(event, Lost)
    assert event.why is Ending.VERSION
    assert "9" in event.detail
    assert isinstance(decode(b"\x09\x06"), OtherVersion)


def test_senseless_packets_are_counted_and_dropped() -> None:
    host, device = open_pair()
    session = device.number
    for data in (b"", b"\x02", b"\x02\x63" + bytes(19), Packet(Kind.OPEN, session).encode()[:-1]):
        device.receive(0.0, data)
    host.receive(0.0, Packet(Kind.OPEN, session).encode())
    assert device.ignored == 4
    assert host.ignored == 1
    assert device.next_packet(0.0) is None
    assert host.next_event() is None


def test_what_may_not_be_sent() -> None:
    session = Session(Role.HOST)
    with pytest.raises(LocalProtocolError):
        session.send(b"no session")
    host, device = open_pair()
    with pytest.raises(LocalProtocolError):
        host.send(b"")
    with pytest.raises(LocalProtocolError):
        host.send(bytes(limits.MAX_MESSAGE + 1))
    for _ in range(limits.OUTBOX):
        host.send(b"x")
    assert host.room == 0
    with pytest.raises(LocalProtocolError):
        host.send(b"x")
    with pytest.raises(LocalProtocolError):
        device.open(0.0)


def test_a_device_survives_any_packets() -> None:
    chance = random.Random(8)
    device = Session(Role.DEVICE, epoch=counter(50))
    for number in range(30_000):
        kind = chance.choice(list(Kind))
        packet = Packet(
            kind,
            chance.choice([device.number, chance.getrandbits(64), 1 << 32 | 50]),
            chance.choice([0, 1, 2, chance.getrandbits(32)]),
            chance.getrandbits(chance.choice([1, 32])),
            tuple((at, at + chance.getrandbits(8)) for at in range(chance.choice([0, 0, 1, 16]))),
            chance.getrandbits(16),
            pack(b"x") if kind is Kind.DATA else b"",
        )
        device.receive(number / 1000, packet.encode())
        if chance.random() < 0.3 and device.room:
            device.send(b"y")
        while device.next_packet(number / 1000) is not None:
            pass
        assert device._undelivered <= limits.WINDOW
        assert device.sending.in_flight <= limits.WINDOW
        if chance.random() < 0.1:
            while device.next_event() is not None:
                pass


def test_a_host_that_gives_up_opening_says_nothing_more() -> None:
    host = Session(Role.HOST, epoch=counter(1))
    host.open(0.0)
    assert host.next_packet(0.0) is not None
    host.abandon()
    assert host.next_packet(10.0) is None
    assert host.deadline() is None
    assert host.next_event() is None


def test_a_hurried_end_asks_at_once_and_until_it_is_heard() -> None:
    host, device = open_pair()
    host.hurry()
    assert host.deadline() <= 1.0
    for at in (1.0, 1.0 + limits.HURRY):
        assert decode(host.next_packet(at)).kind is Kind.PING
        assert host.next_packet(at + limits.HURRY / 2) is None
    device.receive(2.0, Packet(Kind.PING, device.number, 9).encode())
    host.receive(2.0, device.next_packet(2.0))
    assert host.deadline() == 2.0 + limits.KEEPALIVE


def test_an_accept_of_an_older_answer_is_not_acknowledged() -> None:
    host, _ = open_pair()
    host.receive(0.0, Packet(Kind.ACCEPT, (host.number >> 32) << 32 | 77).encode())
    assert host.next_packet(0.0) is None
    host.receive(0.0, Packet(Kind.ACCEPT, host.number).encode())
    assert decode(host.next_packet(0.0)).kind is Kind.ACK


def test_what_changes_nothing_in_an_idle_session() -> None:
    host = Session(Role.HOST)
    host.close()
    host.receive(0.0, b"\x09\x06")
    host.set_rate(11_520.0)
    assert (host.state, host.ignored) == (State.IDLE, 1)
    assert host.next_event() is None
    assert host.next_packet(0.0) is None
