"""TLS inside a session, in memory: over bad lines, and with somebody on the line who knows the protocol."""

import itertools
import random
import ssl
from functools import partial
from pathlib import Path

import pytest

from firmware_bridge import limits
from firmware_bridge.errors import LocalProtocolError
from firmware_bridge.testing.faulty import Faults
from firmware_bridge.testing.pair import End, Pair
from firmware_bridge.testing.site import Site
from firmware_bridge.wire import frame
from firmware_bridge.wire import messages as m
from firmware_bridge.wire.connection import Connection, Unreadable
from firmware_bridge.wire.packet import Kind, Packet
from firmware_bridge.wire.secure import SecureSession, Security, words
from firmware_bridge.wire.states import Ending, Role
from firmware_bridge.wire.stream import LENGTH_BYTES, pack

from .talkers import Line, Talker, chunks, ends, with_body

BAD = Faults(loss=0.1, duplication=0.05, reordering=0.1, bit_errors=1e-5, boot_log=0.02)
REFUSED = {Ending.UNTRUSTED, Ending.VIOLATION}


@pytest.mark.parametrize("seed", range(20))
def test_everything_arrives_once_and_in_order_over_a_bad_line(seed: int, site: Site) -> None:
    host = Talker(Role.HOST, site.security(Role.HOST), chunks(120, seed), 100)
    device = Talker(Role.DEVICE, site.security(Role.DEVICE), chunks(80, -seed), 500)
    host.connection.session.open(0.0)
    line = Pair(End(host.connection, host.work), End(device.connection, device.work), BAD, seed)
    assert line.run(lambda: (len(host.got), len(device.got)) == (80, 120), 600.0)
    assert (host.got, device.got) == (device.to_say, host.to_say)
    assert (host.endings, device.endings, host.opened, device.opened) == ([], [], 1, 1)
    assert host.connection.session.sending.retransmitted > 0


def test_nothing_of_a_message_can_be_read_on_the_line(site: Site) -> None:
    host, device = ends(site)
    line = Line(host, device)
    line.run()
    assert device.got == host.to_say
    carried = b"".join(each.body for _, each in line.seen)
    assert all(message.data[:8] not in carried for message in host.to_say if len(message.data) >= 8)


def test_the_longest_messages_pass_while_the_other_end_takes_its_time(site: Site) -> None:
    data = random.Random(1).randbytes(limits.MAX_MESSAGE - 256)
    long = [m.JobPayload(2**32 - 1, limits.MAX_PAYLOAD, data) for _ in range(40)]
    host = Talker(Role.HOST, site.security(Role.HOST), long, 100)
    device = Talker(Role.DEVICE, site.security(Role.DEVICE), (), 500)
    host.connection.session.open(0.0)
    line = Line(host, device)
    work, device.work = device.work, lambda: None
    while not host.connection.is_open:
        work()
        line.run(0.02)
    line.run(1.0)
    assert host.connection.room == 0  # it waits: for the window, and for a record that did not fit behind it
    with pytest.raises(LocalProtocolError, match="no room"):
        host.connection.send(long[0])
    device.work = work
    line.run(30.0)
    assert device.got == long


@pytest.mark.parametrize("seed", range(60))
def test_one_bit_of_a_packet_edited(seed: int, site: Site) -> None:
    """Whoever knows the protocol makes the CRC right again. What arrives is what was said, up to the edit."""
    chance = random.Random(seed)
    host, device = ends(site)
    wanted, numbers = chance.randrange(24), itertools.count()

    def edit(each: Packet) -> Packet:
        if each.kind is not Kind.DATA or next(numbers) != wanted:
            return each
        body = bytearray(each.body)
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
        return with_body(each, bytes(body))

    Line(host, device, edit, edit).run(1.0)
    assert device.got == host.to_say[: len(device.got)]
    assert host.got == device.to_say[: len(host.got)]
    if (host.got, device.got) != (device.to_say, host.to_say):
        assert REFUSED & {*host.endings, *device.endings}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_message_put_into_the_stream_in_plain_is_not_heard(role: Role, after: int, site: Site) -> None:
    host, device = ends(site)
    numbers = itertools.count()

    def inject(each: Packet) -> Packet:
        if each.kind is not Kind.DATA or next(numbers) != after:
            return each
        forged = pack(m.encode(m.Taken("forged") if role is Role.HOST else m.DeviceLog("forged")))
        return with_body(each, (forged * 500)[: len(each.body)])

    Line(host, device, *((inject, None) if role is Role.HOST else (None, inject))).run(1.0)
    assert device.got == host.to_say[: len(device.got)]
    assert host.got == device.to_say[: len(host.got)]
    assert REFUSED & {*host.endings, *device.endings}


def test_records_that_change_places_are_refused(site: Site) -> None:
    host, device = ends(site)
    host.to_say = [m.JobPayload(number, 0, bytes([number]) * 8000) for number in range(1, 9)]
    kept: list[bytes] = []

    def swap(each: Packet) -> Packet:
        """The second of two packets with the same length gets the first one's bytes, a replay within the session."""
        if each.kind is Kind.DATA and len(each.body) > 500:
            kept.append(each.body)
            if len(kept) > 2 and len(kept[-2]) == len(each.body) > 8000:
                return with_body(each, kept[-2])
        return each

    Line(host, device, swap).run(1.0)
    assert len(device.got) < len(host.to_say)
    assert device.got == host.to_say[: len(device.got)]
    assert Ending.VIOLATION in device.endings


def test_a_session_that_was_recorded_opens_nothing_when_it_is_played_again(site: Site) -> None:
    host, device = ends(site)
    line = Line(host, device)
    line.run()
    assert device.got == host.to_say
    recorded = [each for role, each in line.seen if role is Role.HOST]
    again = Talker(Role.DEVICE, site.security(Role.DEVICE), epoch=500)  # even the same number of the session
    for each in recorded:
        again.connection.receive(0.0, frame.encode(each.encode()))
        again.work()
        while data := again.connection.to_write(0.0):
            again.connection.wrote(len(data))
    assert again.got == []
    assert again.opened == 0
    assert again.endings == [Ending.UNTRUSTED]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_a_stranger_says_only_ends_its_session(seed: int, site: Site) -> None:
    chance = random.Random(seed)
    host, device = ends(site)
    line = Line(host, device)
    line.run()
    spoken = [each.body for role, each in line.seen if role is Role.HOST and each.kind is Kind.DATA]
    fresh = Talker(Role.DEVICE, site.security(Role.DEVICE), epoch=5)
    offset = 0
    session = 1 << 32 | 5
    fresh.connection.receive(0.0, frame.encode(Packet(Kind.OPEN, 1 << 32).encode()))
    for _ in range(chance.randint(1, 6)):
        body = bytearray(chance.choice([*spoken, chance.randbytes(60), b"\x16\x03\x01" + chance.randbytes(300)]))
        body[chance.randrange(len(body))] = chance.randrange(256)
        stream = bytes(body) if chance.random() < 0.5 else pack(bytes(body) or b"\0")
        stream = stream[: limits.CHUNK]
        fresh.connection.receive(0.0, frame.encode(Packet(Kind.DATA, session, offset, body=stream).encode()))
        offset += len(stream)
        fresh.work()
        while data := fresh.connection.to_write(0.0):
            fresh.connection.wrote(len(data))
    assert fresh.got == []
    assert fresh.opened == 0


def test_a_handshake_without_end_is_cut_off(site: Site) -> None:
    device = Talker(Role.DEVICE, site.security(Role.DEVICE), epoch=5)
    device.connection.receive(0.0, frame.encode(Packet(Kind.OPEN, 1 << 32).encode()))
    record = b"\x16\x03\x01\x40\x00\x01\x01\xff\xff" + bytes(0x4000 - 4)  # a ClientHello of 128 KiB, begun
    stream = b"".join(pack(record[at : at + 8000]) for at in range(0, len(record), 8000)) * 4
    for at in range(0, len(stream), limits.CHUNK):
        body = stream[at : at + limits.CHUNK]
        device.connection.receive(0.0, frame.encode(Packet(Kind.DATA, 1 << 32 | 5, at, body=body).encode()))
        device.work()
    assert device.endings == [Ending.UNTRUSTED]


@pytest.mark.parametrize(
    ("host_site", "device_site"), [("site", "stranger"), ("stranger", "site")], ids=["device", "host"]
)
def test_an_end_of_another_site_is_not_believed(
    host_site: str, device_site: str, request: pytest.FixtureRequest
) -> None:
    host = Talker(Role.HOST, request.getfixturevalue(host_site).security(Role.HOST), chunks(3, 1), 100)
    device = Talker(Role.DEVICE, request.getfixturevalue(device_site).security(Role.DEVICE), chunks(3, 2), 500)
    host.connection.session.open(0.0)
    Line(host, device).run(1.0)
    assert host.endings == [Ending.UNTRUSTED]
    assert (device.opened, device.got, host.got) == (0, [], [])


def lax_host(folder: Path, certificate: str | None) -> Security:
    """A host that believes everybody, with this certificate or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(folder / f"{certificate}.pem", folder / f"{certificate}.key")
    return partial(context.wrap_bio, server_side=False)


@pytest.mark.parametrize(("certificate", "said"), [(None, "peer did not return"), ("press-7", "unsuitable")])
def test_a_host_without_a_hosts_certificate_is_sent_away(certificate: str | None, said: str, site: Site) -> None:
    """The device says no after the host's end of the handshake is done: the host hears of it all the same."""
    host = Talker(Role.HOST, lax_host(site.host, certificate), chunks(3, 1), 100)
    device = Talker(Role.DEVICE, site.security(Role.DEVICE), chunks(3, 2), 500)
    host.connection.session.open(0.0)
    Line(host, device).run(1.0)
    assert (device.opened, device.got, host.got) == (0, [], [])
    assert (host.endings, device.endings) == ([Ending.UNTRUSTED], [Ending.UNTRUSTED])
    assert said in device.events[0].detail
    assert "alert" in host.events[-1].detail


def test_a_hosts_certificate_is_no_devices(site: Site) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site.host / "host.pem", site.host / "host.key")
    host, device = ends(site)
    device.connection = Connection(Role.DEVICE, epoch=lambda: 7, security=partial(context.wrap_bio, server_side=True))
    Line(host, device).run(1.0)
    assert host.endings == [Ending.UNTRUSTED]
    assert "purpose" in host.events[-1].detail
    assert (host.opened, device.got) == (0, [])


def test_a_device_under_another_name_is_not_believed(site: Site) -> None:
    for name, endings in (("press-7", []), ("press-8", [Ending.UNTRUSTED])):
        host, device = ends(site)
        host.connection = Connection(Role.HOST, epoch=lambda: 7, security=site.security(Role.HOST, name))
        host.connection.session.open(0.0)
        Line(host, device).run(1.0)
        assert host.endings == endings


def test_ends_that_want_different_things_say_so(site: Site) -> None:
    host, device = ends(site)
    plain = Talker(Role.HOST, None, [m.Hello(1, m.PROTOCOL, "plain", ())], 100)
    plain.connection.session.open(0.0)
    Line(plain, device).run(1.0)
    (answer,) = plain.got
    assert isinstance(answer, m.Refused)
    assert answer.reason == m.RefusalCode.UNAUTHENTICATED
    assert (device.got, device.opened, device.endings) == ([], 0, [Ending.UNTRUSTED])
    assert "without TLS" in device.events[0].detail

    unready = Talker(Role.DEVICE, None, epoch=500)
    line = Line(host, unready)
    work = unready.work

    def answer_as_devices_do() -> None:
        work()
        if any(isinstance(event, Unreadable) for event in unready.events):
            unready.events.clear()
            unready.to_say.append(m.Refused(0, m.RefusalCode.UNSUPPORTED, "not CBOR"))

    unready.work = answer_as_devices_do
    line.run(1.0)
    assert host.endings == [Ending.UNTRUSTED]
    assert "without TLS" in host.events[-1].detail
    assert unready.got == []


def test_the_first_bytes_of_both_kinds_of_line(site: Site) -> None:
    """What PROTOCOL.md says an end can tell the other's kind by, and the one message that is said in plain."""
    host, device = ends(site)
    line = Line(host, device)
    line.run()
    firsts = [next(each.body for role, each in line.seen if role is wanted and each.body) for wanted in Role]
    assert [first[LENGTH_BYTES : LENGTH_BYTES + 3].hex() for first in firsts] == ["160301", "160303"]
    plain = Talker(Role.HOST, None, [m.Hello(1, m.PROTOCOL, "plain", ())], 100)
    plain.connection.session.open(0.0)
    line = Line(plain, Talker(Role.DEVICE, site.security(Role.DEVICE), epoch=500))
    line.run(1.0)
    (refusal,) = [each.body for role, each in line.seen if role is Role.DEVICE and each.body]
    text = b"this line takes hosts with TLS only"
    head = bytes.fromhex("a4616d1825 66726561736f6e 10 676d657373616765 7823".replace(" ", ""))
    assert refusal == pack(head + text + bytes.fromhex("6772657175657374 00".replace(" ", "")))


def test_what_comes_after_the_end_was_told_is_not_heard_and_the_next_session_is(site: Site) -> None:
    host, device = ends(site)
    plain = Talker(Role.HOST, None, [m.Hello(1, m.PROTOCOL, "plain", ()), m.Taken("a"), m.Taken("b")], 100)
    plain.connection.session.open(0.0)
    line = Line(plain, device)
    line.run(1.0)
    plain.connection.session.close()
    line.run(0.1)  # the device heard that its host is gone, and has told the end before
    assert device.endings == [Ending.UNTRUSTED]
    Line(host, device).run(1.0)
    assert (device.got, host.got) == (host.to_say, device.to_say)
    assert (device.endings, device.opened) == ([Ending.UNTRUSTED], 1)


def test_every_session_has_a_handshake_of_its_own(site: Site) -> None:
    host, device = ends(site, 3)
    line = Line(host, device)
    line.run()
    first = [each for each in line.seen if each[1].kind is Kind.DATA]
    line.seen.clear()
    host.connection.session.open(line.now)
    assert not host.connection.is_open
    host.said, device.to_say = 0, []
    line.run(1.0)
    second = [each for each in line.seen if each[1].kind is Kind.DATA]
    assert device.got == 2 * host.to_say
    assert (device.opened, host.opened, device.endings) == (2, 2, [Ending.REPLACED])
    assert not {each.body for _, each in first} & {each.body for _, each in second}


def test_nothing_is_sent_under_the_keys_of_a_session_that_was_replaced(site: Site) -> None:
    host, device = ends(site, 0)
    Line(host, device).run()
    assert device.connection.is_open
    other = Talker(Role.HOST, site.security(Role.HOST), epoch=300)
    other.connection.session.open(0.0)
    for _ in range(2):
        while data := bytes(other.connection.to_write(0.0)):
            other.connection.wrote(len(data))
            device.connection.receive(0.0, data)
        while data := bytes(device.connection.to_write(0.0)):
            device.connection.wrote(len(data))
            other.connection.receive(0.0, data)
    assert not device.connection.is_open  # though it has not been asked for events since
    with pytest.raises(LocalProtocolError, match="no session"):
        device.connection.send(m.DeviceLog("for the host before"))


def talking(site: Site) -> tuple[Talker, Line, SecureSession]:
    """A device, its line to a host after a message each, and the host's TLS."""
    host, device = ends(site, 1)
    line = Line(host, device)
    line.run()
    secure = host.connection._secure
    assert secure is not None
    return device, line, secure


def test_an_end_that_ends_tls_ends_the_session(site: Site) -> None:
    device, line, secure = talking(site)
    with pytest.raises(ssl.SSLWantReadError):
        secure._tls.unwrap()
    secure.flush()
    line.run(1.0)
    assert device.endings == [Ending.VIOLATION]
    assert "ended TLS" in device.events[-1].detail


def test_a_message_of_an_impossible_length_inside_tls_ends_the_session(site: Site) -> None:
    device, line, secure = talking(site)
    secure._tls.write((limits.MAX_MESSAGE + 1).to_bytes(LENGTH_BYTES, "little"))
    secure.flush()
    line.run(1.0)
    assert device.endings == [Ending.VIOLATION]


def test_a_line_that_goes_away_takes_the_session_along(site: Site) -> None:
    host, device = ends(site, 1)
    Line(host, device).run()
    host.connection.link_lost()
    assert not host.connection.is_open
    host.work()
    assert host.endings == [Ending.LINK]


def test_an_error_without_a_reason_is_told_as_it_is() -> None:
    assert "odd" in words(ssl.SSLError("odd"))
