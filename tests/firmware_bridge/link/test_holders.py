import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from firmware_bridge.errors import PortTaken
from firmware_bridge.link.holders import Holder, holders
from firmware_bridge.link.pty import PtyPair
from firmware_bridge.link.serial import open_port

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "rb+", buffering=0)
if sys.argv[2] == "lock":
    fcntl.flock(file, fcntl.LOCK_EX)
print("has it", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["lock", "open"])
def test_who_has_a_file_is_told_with_its_command(how: str, tmp_path: Path) -> None:
    path = tmp_path / "port"
    path.touch()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "has it\n"
        with path.open("rb"):  # we have it open as well, and are not who is asked about
            (found,) = holders(path)
    finally:
        other.communicate()
    assert found.pid == other.pid
    assert "python" in found.command
    assert str(found).startswith(f"process {other.pid}, ")
    assert holders(path) == []


def test_the_one_that_locked_it_is_meant_not_those_that_have_it_open() -> None:
    with PtyPair() as pair, open_port(pair.host_path), pytest.raises(PortTaken, match="taken by another") as caught:
        open_port(pair.host_path)
    assert [each.pid for each in caught.value.holders] == [os.getpid()]


def test_a_kernel_that_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "port"
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert holders(path, tmp_path / "no-proc") == []
        assert [each.pid for each in holders(path)] == [os.getpid()]
    assert holders(tmp_path / "missing") == []
    assert str(Holder(7, "")) == "process 7"
    assert "fuser" in PortTaken([], where="/dev/x").mend
