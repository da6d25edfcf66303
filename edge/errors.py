"""What can go wrong between a calibrated model and a bundle on a board."""

from __future__ import annotations

from typing import ClassVar

from boards.errors import KitError


class LoweringError(KitError):
    """The model cannot be lowered to a program that the device can run."""

    exit_code: ClassVar[int] = 6


class BundleError(KitError):
    """A bundle that is damaged, of another kind, or too large for the board."""

    exit_code: ClassVar[int] = 7
