"""The root of every error this kit raises on purpose, and the exit code each family ends with.

An error says what is wrong, where, and how to mend it. Each package derives its own family in
its own ``errors.py``; the command line turns ``exit_code`` into the process's exit status.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class ExitCode(enum.IntEnum):
    """What a command ends with; the README's list."""

    DONE = 0
    FAILURE = 1
    USAGE = 2
    BOARD = 3
    MODEL = 4
    PLAN = 5
    TOOLCHAIN = 6
    BUNDLE = 7
    PORT = 8
    LINK = 9
    REFUSED = 10
    JOB_FAILED = 11
    JOB_INPUT = 12
    QUEUE = 13
    INTERRUPTED = 130


class KitError(Exception):
    """What went wrong, where, and how to mend it.

    Args:
        what: one sentence, no trailing dot.
        where: file and key, port, layer, job: whatever finds the place; may be empty.
        mend: what the user can do about it; may be empty.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.FAILURE

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.mend = mend

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.what}" + (f" ({self.mend})" if self.mend else "")


class BoardError(KitError):
    """An unknown board, or a board file that does not hold what it must."""

    exit_code: ClassVar[ExitCode] = ExitCode.BOARD
