from pathlib import Path

import pytest

from firmware_bridge.errors import PortError
from firmware_bridge.link.identity import PortIdentity, find, identify, reopener
from firmware_bridge.link.pty import PtyPair

BOARD = PortIdentity("/dev/ttyUSB0", 0x1A86, 0x7523, "A1", "1-1.4")


def moved(path: str, serial_number: str | None = "A1", location: str = "1-1.4", product: int = 0x7523) -> PortIdentity:
    return PortIdentity(path, 0x1A86, product, serial_number, location)


def test_a_board_that_comes_back_under_another_number_is_found() -> None:
    others = [moved("/dev/ttyUSB0", "B2", "1-1.1"), PortIdentity("/dev/ttyAMA0")]
    assert find(BOARD, lambda: [*others, moved("/dev/ttyUSB3")]) == "/dev/ttyUSB3"


def test_a_board_in_another_socket_is_found_by_its_serial_number() -> None:
    assert find(BOARD, lambda: [moved("/dev/ttyUSB7", location="2-1")]) == "/dev/ttyUSB7"


def test_clones_are_told_apart_by_their_sockets_and_never_guessed() -> None:
    clones = [moved("/dev/ttyUSB1", location="1-1.1"), moved("/dev/ttyUSB2", location="1-1.2")]
    assert find(BOARD, lambda: [*clones, moved("/dev/ttyUSB3")]) == "/dev/ttyUSB3"
    with pytest.raises(PortError, match="several ports could be it: /dev/ttyUSB1, /dev/ttyUSB2"):
        find(BOARD, lambda: clones)


@pytest.mark.parametrize("there", [[], [moved("/dev/ttyUSB0", product=1)], [moved("/dev/ttyUSB0", "B2")]])
def test_another_board_is_not_taken_for_it(there: list[PortIdentity]) -> None:
    with pytest.raises(PortError, match="unplugged"):
        find(BOARD, lambda: there)


def test_a_board_without_a_serial_number_is_known_by_its_socket_alone() -> None:
    bare = moved("/dev/ttyUSB0", None)
    assert find(bare, lambda: [moved("/dev/ttyUSB4", None)]) == "/dev/ttyUSB4"
    with pytest.raises(PortError, match="unplugged"):
        find(bare, lambda: [moved("/dev/ttyUSB4", None, "1-1.2")])


def test_what_is_no_usb_port_is_known_by_its_name() -> None:
    assert identify("/dev/nothing") == PortIdentity("/dev/nothing")
    assert find(PortIdentity("/dev/ttyAMA0"), list) == "/dev/ttyAMA0"


def test_a_pty_is_opened_again_only_under_a_name_of_its_own(tmp_path: Path) -> None:
    with PtyPair() as line:
        assert reopener(line.host_path, 9600) is None
        name = tmp_path / "board"
        name.symlink_to(line.host_path)
        again = reopener(str(name), 9600)
        assert again is not None
        with again() as link:
            assert link.name == str(name)
