"""A board without the board: the real supervisor on a real pty, its engine under an emulator.

Only the engine is emulated; the supervisor runs on the host's own Python. What the device logs goes to a file.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import ToolchainError
from firmware_bridge.keys import TrustedKeys
from firmware_bridge.link.pty import PtyPair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from boards import Board
    from firmware_bridge.keys import PublicKey

START_SECONDS = 30.0
STOP_SECONDS = 10.0
_LOG_NAME = "console.log"
_READY = "port "  # the supervisor's line that says that it serves
_SHOWN_LINES = 5


@dataclass(frozen=True)
class VirtualBoard:
    """A running virtual board.

    Attributes:
        port: path for the host to open.
        pid: of the supervisor.
        log: file with the device's console.
        root: the device's folder; it outlives the board.
    """

    port: str
    pid: int
    log: Path
    root: Path


def engine_prefix(board: Board) -> tuple[str, ...]:
    """The words that run a board's engine here; none for a board that is this machine.

    Raises:
        ToolchainError: the emulator or its system libraries are not installed.
    """
    emulator = board.emulator
    if emulator is None:
        return ()
    if shutil.which(emulator.program) is None:
        raise ToolchainError(
            f"{emulator.program} is not installed",
            where=f"virtual board {board.name}",
            mend="sudo apt-get install qemu-user",
        )
    if not Path(emulator.sysroot).is_dir():
        raise ToolchainError(
            f"no system libraries for the emulated board in {emulator.sysroot}",
            where=f"virtual board {board.name}",
            mend="sudo apt-get install libc6-arm64-cross libstdc++6-arm64-cross",
        )
    return emulator.program, "-cpu", emulator.cpu, "-L", emulator.sysroot


@contextmanager
def virtual_board(
    board: Board, root_dir: Path, *, board_file: Path | None = None, trusted: PublicKey | None = None
) -> Iterator[VirtualBoard]:
    """Run a virtual board for the length of a ``with`` block.

    Args:
        board: what it is.
        root_dir: its disk, made if missing; a later run with the same folder is the same device.
        board_file: the file ``board`` was loaded from, where it is none that the supervisor finds by name.
        trusted: a key that it trusts from now on; without any, it takes every bundle.

    Raises:
        ToolchainError: the emulator is missing, or the supervisor did not start; the log's last lines are shown.
        KeyFault: the key was revoked on this board.
    """
    prefix = engine_prefix(board)
    root_dir.mkdir(parents=True, exist_ok=True)
    if trusted is not None and not TrustedKeys(root_dir / "keys").trusts(trusted.raw):
        TrustedKeys(root_dir / "keys").trust(trusted)
    console = root_dir / _LOG_NAME
    with PtyPair() as line, console.open("ab") as log:
        offset = log.tell()
        words = [sys.executable, "-m", "edge.device", "--root", str(root_dir), "--port", line.device_path]
        words += ["--board", str(board_file or board.name), "--engine-prefix", shlex.join(prefix), "--lifeline"]
        # A session of its own: Ctrl-C on the terminal reaches us, and we end it in order. Its stdin is a lifeline: it
        # closes, however we end, and the supervisor goes with us.
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, env=_environment()
        )
        try:
            _wait_until_ready(process, console, offset)
            yield VirtualBoard(line.host_path, process.pid, console, root_dir)
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], console: Path, offset: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        text = console.read_bytes()[offset:].decode(errors="replace")
        if _READY in text and " open at " in text:
            return
        if process.poll() is not None or time.monotonic() > deadline:
            last = " | ".join(text.splitlines()[-_SHOWN_LINES:]) or "it wrote nothing"
            raise ToolchainError(f"the virtual board did not start: {last}", where=str(console))
        time.sleep(0.02)


def _environment() -> dict[str, str]:
    """Ours, and the folder that this package was imported from, wherever the caller stands."""
    home = str(Path(__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))}


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()
