import pytest

from firmware_bridge import limits
from firmware_bridge.wire import frame
from firmware_bridge.wire import messages as m
from firmware_bridge.wire.connection import Connection, Received, Unreadable
from firmware_bridge.wire.packet import Kind, Packet
from firmware_bridge.wire.session import Opened
from firmware_bridge.wire.states import Role
from firmware_bridge.wire.stream import pack


def opened() -> Connection:
    """A device's end with a session."""
    device = Connection(Role.DEVICE, epoch=lambda: 5)
    device.receive(0.0, frame.encode(Packet(Kind.OPEN, 1 << 32).encode()))
    device.wrote(len(device.to_write(0.0)))
    device.receive(0.0, frame.encode(Packet(Kind.ACK, 1 << 32 | 5, credit=limits.WINDOW).encode()))
    assert isinstance(device.next_event(), Opened)
    return device


def data(*bodies: bytes) -> bytes:
    """The first DATA packet of a session, with these messages in it."""
    stream = b"".join(map(pack, bodies))
    return frame.encode(Packet(Kind.DATA, 1 << 32 | 5, credit=limits.WINDOW, body=stream).encode())


def test_messages_come_out_and_what_is_none_is_named() -> None:
    device = opened()
    device.receive(1.0, data(m.encode(m.Taken("j")), b"junk", m.encode(m.Taken("k"))))
    assert device.next_event() == Received(m.Taken("j"))
    assert isinstance(device.next_event(), Unreadable)
    assert device.next_event() == Received(m.Taken("k"))
    assert device.next_event() is None


def test_a_frame_is_offered_until_the_line_has_taken_all_of_it() -> None:
    device = opened()
    device.send(m.DeviceLog("one" * 600))
    for _ in range(5):
        device.send(m.DeviceLog("two" * 600))
    whole = bytes(device.to_write(1.0))
    device.wrote(3)
    assert bytes(device.to_write(1.0)) == whole[3:]
    device.wrote(len(whole) - 3)
    second = bytes(device.to_write(1.0))
    assert second[0] == 0
    assert second != whole
    device.wrote(len(second))
    assert not device.to_write(1.0)


def test_text_on_a_line_that_goes_quiet_is_console_text() -> None:
    device = opened()
    device.receive(1.0, b"login: ")
    assert device.deadline() == 1.0 + limits.QUIET
    device.tick(1.0 + limits.QUIET / 2)
    assert device.take_console() == ""
    device.tick(1.0 + limits.QUIET)
    assert device.take_console() == "login: "
    assert device.deadline() is None


def test_a_frame_that_comes_in_pieces_is_whole_if_no_long_silence_is_between() -> None:
    device = opened()
    whole = data(m.encode(m.Taken("j")))
    device.receive(1.0, whole[:9])
    device.tick(1.0 + limits.QUIET * 0.9)
    device.receive(1.0 + limits.QUIET * 0.9, whole[9:])
    assert device.next_event() == Received(m.Taken("j"))


@pytest.mark.parametrize("line", [b"kernel: a line of some length\n\0", b"x" * 60_000 + b"\0"])
def test_the_console_keeps_the_newest_text_in_bounds(line: bytes) -> None:
    device = opened()
    for _ in range(400_000 // len(line)):
        device.receive(1.0, line)
    device.receive(1.0, b"the end\n\0")
    text = device.take_console()
    assert limits.CONSOLE <= len(text) <= 3 * limits.CONSOLE
    assert text.endswith("the end\n")
    assert device.damaged == 0


def test_a_lost_link_takes_half_read_and_half_written_frames_along() -> None:
    device = opened()
    device.send(m.DeviceLog("half"))
    device.wrote(3 if device.to_write(1.0) else 0)
    device.receive(1.0, data(m.encode(m.Taken("j")))[:9])
    device.link_lost()
    assert not device.is_open
    assert not device.to_write(1.0)
    assert device.deadline() is None
    device.receive(2.0, frame.encode(Packet(Kind.OPEN, 9 << 32).encode()))
    assert device.to_write(2.0)
