"""Operator modules: one linear layer of the model as a call of a ``modiff`` operator, its state in buffers.

A module here holds exactly what the C++ kernel gets: states (zero), packed weights, output scales, bias and the
plan table. It computes nothing itself. ``build_layer`` makes one from a layer's integers and its torch geometry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

import edge.operators  # noqa: F401  (defines torch.ops.modiff)
from edge.errors import LoweringError
from edge.packing import WeightShape, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

EXTRAPOLATE_COLUMN = 6
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


class StepHolder:
    """Where the program puts the step index (int64 [1]) and every operator module finds it.

    A plain object, so that neither ``state_dict`` nor export takes it for part of the model.
    """

    def __init__(self) -> None:
        self.step: Tensor | None = None


@dataclass(frozen=True)
class LayerIntegers:
    """What calibration decided for one layer.

    Args:
        weight: int8, torch layout.
        residual: int8 of the same shape, or None without a residual plane.
        channel_scale: float32 [OC], the weight's scale per output channel.
        bias: float32 [OC] or None.
        lattice_step: s, float32 value.
        lattice_bits: L.
        table: int8 [T + 1, 8], row T the anchor.
        direct: ordinary INT8 without state.
    """

    weight: Tensor
    residual: Tensor | None
    channel_scale: Tensor
    bias: Tensor | None
    lattice_step: float
    lattice_bits: int
    table: Tensor
    direct: bool


@dataclass(frozen=True)
class ConvGeometry:
    """A convolution's shape, always two-dimensional (a 1-d one has height 1); sizes in elements.

    Args:
        shape: the weight.
        stride: (vertical, horizontal), like all pairs here.
        padding: zeros added on both sides.
        dilation: distance of the taps.
        output_size: (OH, OW).
    """

    shape: WeightShape
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    output_size: tuple[int, int]


class OperatorLayer(nn.Module):
    """The buffers both operators share.

    Args:
        integers: what calibration decided.
        shape: how the weight is packed.
        input_shape: channels-last shape of the lattice without planes ([N, H, W, C] or [P, C]).
        output_shape: the same of the accumulator.
        holder: where the step index is found.
    """

    lattice: Tensor
    accumulator: Tensor
    history: Tensor
    counters: Tensor
    weight: Tensor
    residual_weight: Tensor
    scale: Tensor
    bias: Tensor
    table: Tensor

    def __init__(
        self,
        integers: LayerIntegers,
        shape: WeightShape,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        holder: StepHolder,
    ) -> None:
        super().__init__()
        planes = 1 if integers.residual is None else 2
        four = shape.torch_shape
        extrapolates = bool(integers.table[:, EXTRAPOLATE_COLUMN].any()) and not integers.direct
        self.holder = holder
        self.direct = integers.direct
        self.lattice_bits = integers.lattice_bits
        self.inverse_step = float(np.float32(1.0) / np.float32(integers.lattice_step))
        kept = not integers.direct
        self._state("lattice", [planes, *input_shape] if kept else [1], torch.int16)
        self._state("accumulator", [planes, *output_shape] if kept else [1], torch.int32)
        self._state("history", list(output_shape) if extrapolates else [1], torch.float32)
        self._state("counters", [4], torch.int32)
        residual = torch.zeros(1, dtype=torch.int8)
        if integers.residual is not None:
            residual = pack(integers.residual.reshape(four), shape)
        self.register_buffer("weight", pack(integers.weight.reshape(four), shape))
        self.register_buffer("residual_weight", residual)
        self.register_buffer("scale", output_scales(integers.lattice_step, integers.channel_scale, planes))
        bias = torch.zeros(shape.out_channels) if integers.bias is None else integers.bias.detach().float().clone()
        self.register_buffer("bias", bias)
        self.register_buffer("table", integers.table.to(torch.int8).contiguous())

    def _state(self, name: str, shape: list[int], dtype: torch.dtype) -> None:
        self.register_buffer(name, torch.zeros(shape, dtype=dtype))

    @property
    def step(self) -> Tensor:
        """The step index the program was called with."""
        if self.holder.step is None:
            raise LoweringError("an operator module runs outside its program", mend="call the program, not the layer")
        return self.holder.step

    def reset(self) -> None:
        """Zeroes the states: a new job."""
        for state in (self.lattice, self.accumulator, self.history, self.counters):
            state.zero_()


class OperatorConv(OperatorLayer):
    """``modiff::conv2d`` on [N, C, H, W]; with ``one_dimensional`` on [N, C, W], lifted to height 1."""

    def __init__(
        self,
        integers: LayerIntegers,
        geometry: ConvGeometry,
        input_shape: Sequence[int],
        holder: StepHolder,
        *,
        one_dimensional: bool,
    ) -> None:
        batch, channels, height, width = input_shape
        shape = geometry.shape
        output_shape = [batch, *geometry.output_size, shape.out_channels]
        super().__init__(integers, shape, [batch, height, width, channels], output_shape, holder)
        self.geometry = geometry
        self.one_dimensional = one_dimensional

    def forward(self, x: Tensor) -> Tensor:
        """Float32 [N, C, H, W] -> [N, OC, OH, OW] (or without H and OH)."""
        geometry, shape = self.geometry, self.geometry.shape
        lifted = x.unsqueeze(2) if self.one_dimensional else x
        y: Tensor = torch.ops.modiff.conv2d(
            lifted, self.step, self.lattice, self.accumulator, self.history, self.counters,
            self.weight, self.residual_weight, self.scale, self.bias, self.table,
            self.inverse_step, self.lattice_bits,
            list(shape.kernel), list(geometry.stride), list(geometry.padding), list(geometry.dilation),
            shape.groups, shape.transposed, self.direct, list(geometry.output_size),
        )  # fmt: skip
        return y.squeeze(2) if self.one_dimensional else y


class OperatorLinear(OperatorLayer):
    """``modiff::linear`` on [..., C]."""

    def __init__(self, integers: LayerIntegers, input_shape: Sequence[int], holder: StepHolder) -> None:
        out_channels, in_channels = integers.weight.shape
        rows = int(np.prod(input_shape[:-1], dtype=np.int64))
        shape = WeightShape(out_channels, in_channels)
        super().__init__(integers, shape, [rows, in_channels], [rows, out_channels], holder)

    def forward(self, x: Tensor) -> Tensor:
        """Float32 [..., C] -> [..., OC]."""
        y: Tensor = torch.ops.modiff.linear(
            x, self.step, self.lattice, self.accumulator, self.history, self.counters,
            self.weight, self.residual_weight, self.scale, self.bias, self.table,
            self.inverse_step, self.lattice_bits, self.direct,
        )  # fmt: skip
        return y


def output_scales(lattice_step: float, channel_scale: Tensor, planes: int) -> Tensor:
    """float32 [planes, OC]: m0 = fl(s*w_c), m1 = fl(m0/254)."""
    main = channel_scale.detach().to(torch.float32) * torch.tensor(lattice_step, dtype=torch.float32)
    return torch.stack([main, main / torch.tensor(254.0)][:planes]).contiguous()


def build_layer(
    name: str,
    module: nn.Module,
    integers: LayerIntegers,
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    holder: StepHolder,
) -> OperatorLayer:
    """The operator module that replaces ``module`` (a conv or linear layer with torch's attributes).

    Args:
        name: the layer's name, for errors.
        module: gives kernel, stride, padding, dilation and groups.
        integers: what calibration decided.
        input_shape: of the tensor the layer is called with.
        output_shape: of what it returns.
        holder: where the step index is found.

    Raises:
        LoweringError: a kind of layer or padding that has no operator.
    """
    if isinstance(module, nn.Linear):
        return OperatorLinear(integers, input_shape, holder)
    if not isinstance(module, CONVOLUTIONS):
        raise LoweringError(
            f"{type(module).__name__} has no operator",
            where=name,
            mend="take the layer out of the plan; it then stays in floating point",
        )
    geometry = _geometry(name, module, output_shape)
    one_dimensional = isinstance(module, (nn.Conv1d, nn.ConvTranspose1d))
    lifted = [*input_shape[:2], 1, *input_shape[2:]] if one_dimensional else list(input_shape)
    return OperatorConv(integers, geometry, lifted, holder, one_dimensional=one_dimensional)


def _geometry(
    name: str, module: nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d, output_shape: Sequence[int]
) -> ConvGeometry:
    if module.padding_mode != "zeros":
        raise LoweringError(
            f"padding mode {module.padding_mode!r} has no operator",
            where=name,
            mend="take the layer out of the plan; it then stays in floating point",
        )
    kernel, dilation = tuple(module.kernel_size), tuple(module.dilation)
    padding = _resolve_padding(name, module.padding, kernel, dilation)
    output = tuple(output_shape[2:])
    shape = WeightShape(
        module.out_channels, module.in_channels, _pair(kernel, 1), module.groups, transposed=bool(module.transposed)
    )
    return ConvGeometry(
        shape, _pair(tuple(module.stride), 1), _pair(padding, 0), _pair(dilation, 1), _pair(output, 1)
    )


def _resolve_padding(
    name: str, padding: str | Sequence[int], kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[int, ...]:
    """Numbers from torch's padding, which may be ``"same"`` or ``"valid"``."""
    if not isinstance(padding, str):
        return tuple(padding)
    if padding == "valid":
        return tuple(0 for _ in kernel)
    totals = [(extent - 1) * distance for extent, distance in zip(kernel, dilation, strict=True)]
    if any(total % 2 for total in totals):
        raise LoweringError("padding 'same' is uneven for an even kernel", where=name, mend="use an odd kernel")
    return tuple(total // 2 for total in totals)


def _pair(values: tuple[int, ...], leading: int) -> tuple[int, int]:
    """Two numbers from one or two: a 1-d layer's vertical value is ``leading``."""
    return (leading, values[0]) if len(values) == 1 else (values[0], values[1])
