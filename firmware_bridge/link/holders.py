"""Which process has a port: the one that locked it, as we do, else those that have it open (Linux: /proc)."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
_WORDS: Final = 100
"""Characters of a command that are shown."""


@dataclass(frozen=True)
class Holder:
    """A process that has a port, or another file, for itself.

    Args:
        pid: its number.
        command: as it was started; empty where that cannot be seen.
    """

    pid: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid}" + (f", {self.command}" if self.command else "")


def holders(path: str | Path, proc: Path = PROC) -> list[Holder]:
    """Who has this file: who locked it; where nobody has, the others that have it open, as far as we may see.

    Args:
        path: of the port.
        proc: the kernel's table of processes.
    """
    pids = sorted(set(_lockers(path, proc)) or set(_openers(path, proc)) - {os.getpid()})
    return [Holder(pid, _command(proc / str(pid))) for pid in pids]


def _lockers(path: str | Path, proc: Path) -> Iterator[int]:
    """Of lines such as `2: FLOCK ADVISORY WRITE 1312 00:1a:5 0 EOF`: process, device (hex) and inode."""
    with contextlib.suppress(OSError):
        about = Path(path).stat()
        wanted = (os.major(about.st_dev), os.minor(about.st_dev), about.st_ino)
        for line in (proc / "locks").read_text().splitlines():
            words = line.split()
            if len(words) == 8 and words[1] == "FLOCK":
                major, minor, inode = words[5].split(":")
                if (int(major, 16), int(minor, 16), int(inode)) == wanted and int(words[4]) > 0:
                    yield int(words[4])


def _openers(path: str | Path, proc: Path) -> Iterator[int]:
    real = Path(os.path.realpath(path))
    for process in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is somebody else's
            if any(_leads_to(link, real) for link in (process / "fd").iterdir()):
                yield int(process.name)


def _leads_to(link: Path, real: Path) -> bool:
    with contextlib.suppress(OSError):  # it has been closed meanwhile
        return link.readlink() == real
    return False


def _command(process: Path) -> str:
    with contextlib.suppress(OSError):
        words = (process / "cmdline").read_bytes().split(b"\0")
        return shlex.join(word.decode(errors="replace") for word in words if word)[:_WORDS]
    return ""
