"""INT8 weights in the order in which the kernels read them, and back.

Order, per group ``g`` of output channels: ``[ceil(OCg/16)][tap][ceil(Cg/4)][16 output channels][4 input channels]``,
padded with zeros; the groups follow each other. ``tap = kh * KW + kw``. One row of 16 x 4 bytes is what one
dot-product instruction per output-channel quad consumes: four input channels of one output channel lie in one
32-bit lane. A transposed convolution keeps the tap order of its torch weight ``[C, OCg, KH, KW]`` (not flipped):
``out[oy, ox] += W[:, :, kh, kw] * in[iy, ix]`` where ``oy = iy*stride - padding + kh*dilation``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

OUTPUT_TILE = 16
"""Output channels side by side in one tile."""
INPUT_TILE = 4
"""Input channels side by side in one 32-bit lane."""


@dataclass(frozen=True)
class WeightShape:
    """What a layer's weight looks like before packing.

    Args:
        out_channels: OC, all groups together.
        in_channels: C, all groups together.
        kernel: (KH, KW); (1, 1) for a linear layer.
        groups: both channel counts are divisible by it.
        transposed: whether the torch weight is ``[C, OC/groups, KH, KW]`` instead of ``[OC, C/groups, KH, KW]``.
    """

    out_channels: int
    in_channels: int
    kernel: tuple[int, int] = (1, 1)
    groups: int = 1
    transposed: bool = False

    @property
    def taps(self) -> int:
        """KH * KW."""
        return self.kernel[0] * self.kernel[1]

    @property
    def torch_shape(self) -> tuple[int, int, int, int]:
        """The shape of the four-dimensional torch weight."""
        if self.transposed:
            return (self.in_channels, self.out_channels // self.groups, *self.kernel)
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @property
    def tiled_shape(self) -> tuple[int, int, int, int, int, int]:
        """[groups, ceil(OCg/16), taps, ceil(Cg/4), 16, 4]."""
        output_tiles = -(-(self.out_channels // self.groups) // OUTPUT_TILE)
        input_tiles = -(-(self.in_channels // self.groups) // INPUT_TILE)
        return (self.groups, output_tiles, self.taps, input_tiles, OUTPUT_TILE, INPUT_TILE)

    @property
    def packed_bytes(self) -> int:
        """Length of the packed weight."""
        size = 1
        for extent in self.tiled_shape:
            size *= extent
        return size


def pack(weight: Tensor, shape: WeightShape) -> Tensor:
    """Packs an int8 weight of ``shape.torch_shape``; returns int8 ``[shape.packed_bytes]``, contiguous.

    Raises:
        ValueError: the weight is not int8 or has another shape.
    """
    if weight.dtype != torch.int8 or tuple(weight.shape) != shape.torch_shape:
        raise ValueError(f"expected an int8 weight {shape.torch_shape}, got {weight.dtype} {tuple(weight.shape)}")
    grouped = _by_group(weight, shape)
    groups, output_tiles, taps, input_tiles, _, _ = shape.tiled_shape
    pad_output = output_tiles * OUTPUT_TILE - grouped.shape[1]
    pad_input = input_tiles * INPUT_TILE - grouped.shape[2]
    padded = functional.pad(grouped, (0, 0, 0, pad_input, 0, pad_output))
    tiles = padded.reshape(groups, output_tiles, OUTPUT_TILE, input_tiles, INPUT_TILE, taps)
    return tiles.permute(0, 1, 5, 3, 2, 4).contiguous().reshape(-1)


def unpack(packed: Tensor, shape: WeightShape) -> Tensor:
    """The inverse of ``pack``: int8 of ``shape.torch_shape``, contiguous.

    Raises:
        ValueError: the packed weight is not int8 or has another length.
    """
    if packed.dtype != torch.int8 or tuple(packed.shape) != (shape.packed_bytes,):
        raise ValueError(f"expected int8 [{shape.packed_bytes}], got {packed.dtype} {tuple(packed.shape)}")
    groups, output_tiles, taps, input_tiles, _, _ = shape.tiled_shape
    tiles = packed.reshape(shape.tiled_shape).permute(0, 1, 4, 3, 5, 2)
    padded = tiles.reshape(groups, output_tiles * OUTPUT_TILE, input_tiles * INPUT_TILE, taps)
    group_outputs, group_inputs = shape.out_channels // groups, shape.in_channels // groups
    grouped = padded[:, :group_outputs, :group_inputs]
    if shape.transposed:
        grouped = grouped.permute(0, 2, 1, 3)
    return grouped.reshape(shape.torch_shape).contiguous()


def _by_group(weight: Tensor, shape: WeightShape) -> Tensor:
    """[groups, OCg, Cg, taps] from a torch weight."""
    group_outputs, group_inputs = shape.out_channels // shape.groups, shape.in_channels // shape.groups
    if shape.transposed:
        by_input = weight.reshape(shape.groups, group_inputs, group_outputs, shape.taps)
        return by_input.permute(0, 2, 1, 3)
    return weight.reshape(shape.groups, group_outputs, group_inputs, shape.taps)
