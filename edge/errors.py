"""Every error that ``edge`` raises on purpose, by family; ``boards.errors`` says what an error carries."""

from __future__ import annotations

from typing import ClassVar

from boards.errors import ExitCode, KitError


class UsageError(KitError):
    """Options that contradict each other or name nothing that exists."""

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE


class NoModelError(KitError):
    """A model that is not there; what is there and cannot be loaded is a ``calib.errors.ModelError``."""

    exit_code: ClassVar[ExitCode] = ExitCode.MODEL


class ToolchainError(KitError):
    """No compiler, no runtime wheel, or source that does not compile."""

    exit_code: ClassVar[ExitCode] = ExitCode.TOOLCHAIN


class LoweringError(KitError):
    """A model that cannot be exported, lowered or expressed with the kit's operators."""

    exit_code: ClassVar[ExitCode] = ExitCode.TOOLCHAIN


class BundleError(KitError):
    """A bundle that is incomplete, damaged, of another format, or too large for its board."""

    exit_code: ClassVar[ExitCode] = ExitCode.BUNDLE


class DeviceError(KitError):
    """The device refused: a hash, the golden self-test, its storage."""

    exit_code: ClassVar[ExitCode] = ExitCode.REFUSED


class EngineError(KitError):
    """The engine process died, ran out of memory, or answered with an error."""

    exit_code: ClassVar[ExitCode] = ExitCode.JOB_FAILED


class JobInputError(KitError):
    """A job whose input the program cannot take: wrong image size, NaN, a start beyond the last step."""

    exit_code: ClassVar[ExitCode] = ExitCode.JOB_INPUT
