"""What calibration refuses on purpose."""

from __future__ import annotations

from typing import ClassVar

from boards.errors import ExitCode, KitError


class ModelError(KitError):
    """A model folder that is missing, pickled, damaged or of a kind the kit does not know."""

    exit_code: ClassVar[ExitCode] = ExitCode.MODEL


class CalibrationError(KitError):
    """Settings, a stored calibration or an observation that cannot be used."""

    exit_code: ClassVar[ExitCode] = ExitCode.PLAN


class PlanError(CalibrationError):
    """A plan that breaks the plan format."""
