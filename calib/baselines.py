"""What modulation is measured against: ordinary (unmodulated) post-training quantization, simulated."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping

import torch
from torch import nn

from calib.operators import bias_of, operator_of, weight_of
from calib.standin import StandIn
from calib.weights import quantize_weight

EIGHT_BITS = 8


class DirectLayer(StandIn):
    """A layer with INT8 weights (one scale an output channel) whose whole input is quantized at each step.

    The integers are simulated in float32: codes are exact, their products and sums are rounded as floats are.

    Args:
        module: the float layer.
        bits: of the input's codes.
        edges: lowest and highest value to represent (one scale and zero point a tensor, static); None = taken from
            each input that comes, over its batch entry alone (dynamic).
    """

    def __init__(
        self,
        module: nn.Module,
        bits: int,
        edges: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.operator, _ = operator_of(module)
        main, _, scale = quantize_weight(self.operator, weight_of(module))
        rows = self.operator.per_channel(main.to(torch.float32)) * scale[:, None]
        self.quantized = self.operator.from_per_channel(rows, main.shape).contiguous()
        self.shift = self.operator.channel_shape(bias_of(module))
        self.stand_in_for(module)
        self.levels = 2**bits - 1
        self.edges = edges
        self.one_dimensional = isinstance(module, nn.Conv1d | nn.ConvTranspose1d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 in the float layer's input shape -> float32 in its output shape."""
        if self.edges is None:
            flat = x.flatten(1)
            shape = (-1, *(1,) * (x.dim() - 1))
            low, high = flat.amin(1).reshape(shape), flat.amax(1).reshape(shape)
        else:
            low, high = (torch.tensor(edge, dtype=torch.float32) for edge in self.edges)
        values = fake_quantize(x, low, high, self.levels)
        if self.one_dimensional:
            return (self.operator(values.unsqueeze(-2), self.quantized) + self.shift).squeeze(-2)
        return self.operator(values, self.quantized) + self.shift


def fake_quantize(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor, levels: int) -> torch.Tensor:
    """Round to ``levels + 1`` evenly spaced values between the edges, one of them exactly 0, and cut what is outside.

    Args:
        x: float32.
        low: float32, broadcastable to ``x``; 0 where it is above that.
        high: the same; 0 where it is below that.
        levels: codes less one.
    """
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = ((high - low) / levels).clamp(min=torch.finfo(torch.float32).tiny)
    zero_point = (-low / scale).round()
    codes = ((x / scale).round() + zero_point).clamp(0, levels)
    return (codes - zero_point) * scale


def static_quantized(
    denoiser: nn.Module, edges: Mapping[str, tuple[float, float]], bits: int = EIGHT_BITS, wide: Collection[str] = ()
) -> nn.Module:
    """A copy of the denoiser with the named layers in static quantization; other layers stay in floating point.

    Args:
        denoiser: the float model; it is not changed.
        edges: (lowest, highest) input to represent, by layer name.
        bits: of the inputs' codes.
        wide: layers whose codes have 8 bits all the same.
    """
    return _replaced(
        denoiser, edges, lambda name, module: DirectLayer(module, EIGHT_BITS if name in wide else bits, edges[name])
    )


def dynamic_quantized(
    denoiser: nn.Module, names: Collection[str], bits: int = EIGHT_BITS, wide: Collection[str] = ()
) -> nn.Module:
    """A copy of the denoiser with the named layers quantized over the range that each input has.

    Args:
        denoiser: the float model; it is not changed.
        names: of the layers.
        bits: of the inputs' codes.
        wide: layers whose codes have 8 bits all the same.
    """
    return _replaced(denoiser, names, lambda name, module: DirectLayer(module, EIGHT_BITS if name in wide else bits))


def _replaced(
    denoiser: nn.Module, names: Mapping[str, object] | Collection[str], make: Callable[[str, nn.Module], nn.Module]
) -> nn.Module:
    quantized = copy.deepcopy(denoiser).eval().requires_grad_(requires_grad=False)
    modules = dict(quantized.named_modules())
    for name in names:
        parent, _, child = name.rpartition(".")
        setattr(modules[parent], child, make(name, modules[name]))
    return quantized
