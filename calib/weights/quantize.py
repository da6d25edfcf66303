"""Weights as INT8, by a ``WeightMethod``, and the plane that holds what it left over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from calib.errors import CalibrationError
from calib.lattice import CODE_LIMIT, RESIDUAL_LEVELS, Operator
from calib.weights.gptq import gptq_codes
from calib.weights.methods import (
    CorrectBias,
    Gptq,
    KeepBias,
    MaxRange,
    MseRange,
    RoundToNearest,
    WeightMethod,
)

if TYPE_CHECKING:
    from calib.weights.moments import InputMoments

NEAREST = WeightMethod()


def quantize_weight(
    operator: Operator, weight: torch.Tensor, method: WeightMethod = NEAREST, moments: InputMoments | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make two INT8 planes of a weight. An all-zero channel gets scale 1.

    Args:
        operator: whose weight it is.
        weight: float32, finite.
        method: range and rounding; its bias part is ``corrected_bias``'s.
        moments: of the layer's input, where the rounding looks at it.

    Returns:
        Main plane int8, residual plane int8 (both shaped as ``weight``), channel scale float32 ``[OC]``.

    Raises:
        CalibrationError: a weight that is not finite, or a rounding without its moments.
    """
    if not torch.isfinite(weight).all():
        raise CalibrationError("a weight is not finite", mend="the model is damaged; load it anew")
    rows = operator.per_channel(weight)
    scale = _channel_scale(rows, method.range)
    exact = rows.double() / scale.double()[:, None]
    match method.rounding:
        case RoundToNearest():
            main = exact.round().clamp(-CODE_LIMIT, CODE_LIMIT)
        case Gptq():
            if moments is None or moments.second is None:
                raise CalibrationError("GPTQ without the layer's input moments", mend="observe them first")
            # A corrected bias takes the mean's share of the error away, so the spread is left to minimize.
            square = moments.covariance() if isinstance(method.bias, CorrectBias) else moments.second
            main = gptq_codes(exact, square, method.rounding.damping)
    residual = ((exact - main) * RESIDUAL_LEVELS).round().clamp(-CODE_LIMIT, CODE_LIMIT)
    planes = (operator.from_per_channel(plane.to(torch.int8), weight.shape).contiguous() for plane in (main, residual))
    return next(planes), next(planes), scale


def corrected_bias(
    operator: Operator,
    weight: torch.Tensor,
    *,
    bias: torch.Tensor,
    main: torch.Tensor,
    scale: torch.Tensor,
    method: WeightMethod,
    moments: InputMoments | None = None,
) -> torch.Tensor:
    """The bias that goes with the main plane: float32 ``[OC]``.

    Args:
        operator: whose weight it is.
        weight: float32, what was quantized.
        bias: float32 ``[OC]``.
        main: int8, shaped as ``weight``.
        scale: float32 ``[OC]``, the channel scale.
        method: its bias part decides.
        moments: of the layer's input, where the bias is corrected.

    Raises:
        CalibrationError: a correction without its moments.
    """
    match method.bias:
        case KeepBias():
            return bias
        case CorrectBias():
            if moments is None:
                raise CalibrationError("bias correction without the layer's input moments", mend="observe them first")
            rows = operator.per_channel(weight).double()
            lost = rows - operator.per_channel(main).double() * scale.double()[:, None]
            grouped = lost.reshape(operator.groups, -1, lost.shape[1])
            return (bias.double() + (grouped @ moments.mean[:, :, None]).flatten()).to(torch.float32)


def _channel_scale(rows: torch.Tensor, method: MaxRange | MseRange) -> torch.Tensor:
    """float32 ``[OC]`` of rows ``[OC, K]``."""
    largest = rows.abs().amax(1)
    # A scale under the smallest normal float would round to a useless one; such a channel is zero.
    full = torch.where(largest / CODE_LIMIT > torch.finfo(torch.float32).tiny, largest / CODE_LIMIT, 1.0)
    match method:
        case MaxRange():
            return full
        case MseRange(smallest, candidates):
            best, least = full, torch.full_like(full, torch.inf, dtype=torch.float64)
            for share in torch.linspace(1.0, smallest, candidates).tolist():
                scale = full * share
                steps = scale.double()[:, None]
                codes = (rows.double() / steps).round().clamp(-CODE_LIMIT, CODE_LIMIT)
                error = (codes * steps - rows).square().sum(1)
                best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
            return best
