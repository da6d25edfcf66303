"""The root of every error this kit raises on purpose, and the exit code each family ends with.

An error says what is wrong, where, and how to mend it. Each package derives its own family in
its own ``errors.py``; the command line turns ``exit_code`` into the process's exit status.
"""

from __future__ import annotations

from typing import ClassVar


class KitError(Exception):
    """What went wrong, where, and how to mend it.

    Args:
        what: one sentence, no trailing dot.
        where: file and key, port, layer, job: whatever finds the place; may be empty.
        mend: what the user can do about it; may be empty.
    """

    exit_code: ClassVar[int] = 1

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

    exit_code = 3
