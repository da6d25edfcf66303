"""What modulation is measured against: ordinary static INT8 post-training quantization, simulated."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from calib.operators import bias_of, operator_of, weight_of
from calib.weights import quantize_weight

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVELS = 255


class StaticInt8Layer(nn.Module):
    """A layer with INT8 weights (one scale an output channel) and INT8 inputs (one scale and zero point a tensor).

    The integers are simulated in float32: codes are exact, their products and sums are rounded as floats are.

    Args:
        module: the float layer.
        lowest, highest: its input's extreme values over the calibration run; widened to hold 0.
    """

    def __init__(self, module: nn.Module, lowest: float, highest: float) -> None:
        super().__init__()
        self.operator, _ = operator_of(module)
        main, _, scale = quantize_weight(self.operator, weight_of(module))
        rows = self.operator.per_channel(main.to(torch.float32)) * scale[:, None]
        self.weight = self.operator.from_per_channel(rows, main.shape).contiguous()
        self.bias = self.operator.channel_shape(bias_of(module))
        self.lowest = min(lowest, 0.0)
        self.scale = max((max(highest, 0.0) - self.lowest) / LEVELS, torch.finfo(torch.float32).tiny)
        self.zero_point = round(-self.lowest / self.scale)
        self.one_dimensional = isinstance(module, nn.Conv1d | nn.ConvTranspose1d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 in the float layer's input shape -> float32 in its output shape."""
        codes = torch.clamp((x / self.scale).round() + self.zero_point, 0, LEVELS)
        values = (codes - self.zero_point) * self.scale
        if self.one_dimensional:
            return (self.operator(values.unsqueeze(-2), self.weight) + self.bias).squeeze(-2)
        return self.operator(values, self.weight) + self.bias


def static_int8(denoiser: nn.Module, ranges: Mapping[str, tuple[float, float]]) -> nn.Module:
    """A copy of the denoiser with the named layers in static INT8.

    Args:
        denoiser: the float model; it is not changed.
        ranges: (lowest, highest) observed input, by layer name; other layers stay in floating point.
    """
    quantized = copy.deepcopy(denoiser).eval().requires_grad_(requires_grad=False)
    modules = dict(quantized.named_modules())
    for name, (lowest, highest) in ranges.items():
        parent, _, child = name.rpartition(".")
        setattr(modules[parent], child, StaticInt8Layer(modules[name], lowest, highest))
    return quantized
