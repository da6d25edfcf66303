from pathlib import Path

import pytest
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from firmware_bridge.errors import PortError
from firmware_bridge.link.discover import PORTS_VARIABLE, Candidate, candidates, resolve


def port(device: str, vid: int | None = None, serial_number: str | None = None) -> ListPortInfo:
    info = ListPortInfo(device)
    info.vid, info.serial_number, info.description = vid, serial_number, "CP2102N"
    return info


def test_a_named_port_is_taken_as_it_is() -> None:
    assert resolve("/dev/ttyUSB7", list) == "/dev/ttyUSB7"
    assert resolve("socket://pi:5000", list) == "socket://pi:5000"


def test_auto_takes_the_only_candidate() -> None:
    assert resolve("auto", lambda: [Candidate("/dev/ttyUSB7", "CP2102N")]) == "/dev/ttyUSB7"


def test_auto_never_takes_one_of_several() -> None:
    found = [Candidate("/dev/ttyUSB0", "CP2102N, serial number 0001"), Candidate("/dev/ttyACM0", "Pi 5")]
    with pytest.raises(PortError) as caught:
        resolve("auto", lambda: found)
    for candidate in found:
        assert f"{candidate.path} ({candidate.description})" in str(caught.value)
    assert "--port" in caught.value.mend


def test_auto_without_any() -> None:
    with pytest.raises(PortError, match="no serial port"):
        resolve("auto", list)


def test_usb_and_onboard_ports_are_candidates_and_ghosts_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PORTS_VARIABLE, raising=False)
    ports = [
        port("/dev/ttyUSB1", 0x10C4, "A1"),
        port("/dev/ttyS0"),
        port("/dev/ttyAMA10"),
        port("/dev/ttyACM0", 0x2E8A),
    ]
    monkeypatch.setattr(list_ports, "comports", lambda: ports)
    assert candidates() == [
        Candidate("/dev/ttyACM0", "CP2102N"),
        Candidate("/dev/ttyAMA10", "CP2102N"),
        Candidate("/dev/ttyUSB1", "CP2102N, serial number A1"),
    ]


def test_the_environment_names_candidates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("slot-2", "slot-1", "other"):
        (tmp_path / name).touch()
    monkeypatch.setenv(PORTS_VARIABLE, f"{tmp_path}/slot-*:{tmp_path}/slot-1::{tmp_path}/missing")
    assert [candidate.path for candidate in candidates()] == [f"{tmp_path}/slot-1", f"{tmp_path}/slot-2"]
