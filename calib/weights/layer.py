"""A layer in integers, and how many lattice bits an int32 accumulator leaves it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from calib.errors import CalibrationError
from calib.lattice import RESIDUAL_LEVELS, Operator

MAX_LATTICE_BITS = 16
MIN_LATTICE_BITS = 8


@dataclass(frozen=True)
class LayerWeights:
    """A layer in integers.

    Attributes:
        main: int8 ``W_q`` in [-127, 127], PyTorch's weight layout (one-dimensional ones with height 1).
        residual: int8 ``W_r``, the same shape: ``W ~ w_c * (W_q + W_r / 254)``.
        channel_scale: float32 ``[OC]``, ``w_c``.
        bias: float32 ``[OC]``.
        step: float32 scalar, the lattice step ``s``.
        lattice_bits: ``L``.
    """

    main: torch.Tensor
    residual: torch.Tensor
    channel_scale: torch.Tensor
    bias: torch.Tensor
    step: torch.Tensor
    lattice_bits: int

    @property
    def inverse_step(self) -> torch.Tensor:
        """float32 scalar ``fl(1 / s)``."""
        return self.step.reciprocal()

    def output_scales(self) -> torch.Tensor:
        """float32 ``[2, OC]``: ``m0 = fl(s * w_c)`` and ``m1 = fl(m0 / 254)``."""
        main = self.step * self.channel_scale
        return torch.stack([main, main / RESIDUAL_LEVELS])


def lattice_bits(operator: Operator, *planes: torch.Tensor, wanted: int) -> int:
    """The lattice bits that an int32 accumulator has room for: ``2^(L-1) * max_c sum|W[c]| < 2^31`` (I3).

    Args:
        operator: the layer's.
        planes: its INT8 weights; the bound holds for each.
        wanted: bits to use where the bound allows them, 8..16.

    Raises:
        CalibrationError: not even 8 bits fit, or ``wanted`` is out of range.
    """
    if not MIN_LATTICE_BITS <= wanted <= MAX_LATTICE_BITS:
        raise CalibrationError(
            f"{wanted} lattice bits", mend=f"use {MIN_LATTICE_BITS}..{MAX_LATTICE_BITS}", where="lattice_bits"
        )
    heaviest = max(int(operator.per_channel(plane).long().abs().sum(1).max()) for plane in planes)
    bits = wanted
    while bits >= MIN_LATTICE_BITS and 2 ** (bits - 1) * heaviest >= 2**31:
        bits -= 1
    if bits < MIN_LATTICE_BITS:
        raise CalibrationError(f"a channel's weights sum to {heaviest} steps: int32 would overflow")
    return bits
