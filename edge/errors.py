"""Every error that ``edge`` raises on purpose, by family; ``boards.errors`` says what an error carries."""

from __future__ import annotations

from typing import ClassVar

from boards.errors import KitError


class UsageError(KitError):
    """Options that contradict each other or name nothing that exists."""

    exit_code: ClassVar[int] = 2


class NoModelError(KitError):
    """A model that is not there; what is there and cannot be loaded is a ``calib.errors.ModelError``."""

    exit_code: ClassVar[int] = 4


class ToolchainError(KitError):
    """No compiler, no runtime wheel, or source that does not compile."""

    exit_code: ClassVar[int] = 6


class LoweringError(KitError):
    """A model that cannot be exported, lowered or expressed with the kit's operators."""

    exit_code: ClassVar[int] = 6


class BundleError(KitError):
    """A bundle that is incomplete, damaged, of another format, or too large for its board."""

    exit_code: ClassVar[int] = 7


class DeviceError(KitError):
    """The device refused: a hash, the golden self-test, its storage."""

    exit_code: ClassVar[int] = 10


class EngineError(KitError):
    """The engine process died, ran out of memory, or answered with an error."""

    exit_code: ClassVar[int] = 11


class JobInputError(KitError):
    """A job whose input the program cannot take: wrong image size, NaN, a start beyond the last step."""

    exit_code: ClassVar[int] = 12
