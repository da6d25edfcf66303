"""Virtual boards: the emulator's words, what is missing and how to get it, and that nothing outlives its owner."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boards import load_board
from boards.model import Emulator
from edge.errors import ToolchainError
from edge.virtual import engine_prefix, virtual_board

REPOSITORY = Path(__file__).parents[2]


def test_the_words_before_the_engine() -> None:
    assert engine_prefix(load_board("host")) == ()
    for name, core in (("rpi4", "cortex-a72"), ("rpi5", "cortex-a76")):
        board = load_board(name)
        assert board.emulator is not None
        there = dataclasses.replace(board, emulator=dataclasses.replace(board.emulator, program="true", sysroot="/usr"))
        assert engine_prefix(there) == ("true", "-cpu", core, "-L", "/usr")


@pytest.mark.parametrize(
    ("emulator", "words"),
    [
        (Emulator("qemu-nowhere", "cortex-a76", "/usr"), "sudo apt-get install qemu-user"),
        (Emulator("true", "cortex-a76", "/nowhere"), "sudo apt-get install libc6-arm64-cross"),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_brings_it(
    tmp_path: Path, emulator: Emulator, words: str
) -> None:
    board = dataclasses.replace(load_board("rpi5"), emulator=emulator)
    with pytest.raises(ToolchainError, match="virtual board rpi5") as caught, virtual_board(board, tmp_path / "root"):
        pytest.fail("a board without an emulator came up")
    assert words in str(caught.value)
    assert caught.value.exit_code == 6


def test_a_supervisor_that_does_not_start_shows_its_last_words(tmp_path: Path) -> None:
    host = load_board("host")
    with (
        virtual_board(host, tmp_path / "root"),
        pytest.raises(ToolchainError, match="another supervisor uses this folder") as caught,
        virtual_board(host, tmp_path / "root"),
    ):
        pytest.fail("two supervisors share a folder")
    assert str(tmp_path / "root") in str(caught.value)


def test_an_error_inside_the_block_still_ends_the_board(tmp_path: Path) -> None:
    pids = []

    def fail() -> None:
        with virtual_board(load_board("host"), tmp_path / "root") as board:
            pids.append(board.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not Path(f"/proc/{pids[0]}").exists()


def test_the_board_goes_when_its_owner_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time, pathlib; from boards import load_board; from edge.virtual import virtual_board\n"
        f"with virtual_board(load_board('host'), pathlib.Path({str(tmp_path / 'root')!r})) as board:\n"
        "    print(board.pid, flush=True); time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout as lines:
        pid = int(lines.readline())
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    """Whether the process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
