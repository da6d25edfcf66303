"""Weights as INT8: round to nearest per output channel, and the plane that holds what rounding lost."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from calib.errors import CalibrationError
from calib.lattice import CODE_LIMIT, RESIDUAL_LEVELS, Operator

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


def quantize_weight(operator: Operator, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Round a weight to two INT8 planes.

    The channel scale puts the largest weight of an output channel at 127. An all-zero channel gets scale 1.

    Args:
        operator: whose weight it is.
        weight: float32, finite.

    Returns:
        Main plane int8, residual plane int8 (both shaped as ``weight``), channel scale float32 ``[OC]``.

    Raises:
        CalibrationError: a weight that is not finite.
    """
    if not torch.isfinite(weight).all():
        raise CalibrationError("a weight is not finite", mend="the model is damaged; load it anew")
    rows = operator.per_channel(weight)
    largest = rows.abs().amax(1)
    # A scale under the smallest normal float would round to a useless one; such a channel is zero.
    scale = torch.where(largest / CODE_LIMIT > torch.finfo(torch.float32).tiny, largest / CODE_LIMIT, 1.0)
    exact = rows.double() / scale.double()[:, None]
    main = exact.round().clamp(-CODE_LIMIT, CODE_LIMIT)
    residual = ((exact - main) * RESIDUAL_LEVELS).round().clamp(-CODE_LIMIT, CODE_LIMIT)
    planes = (operator.from_per_channel(plane.to(torch.int8), weight.shape).contiguous() for plane in (main, residual))
    return next(planes), next(planes), scale


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
