"""The operators ``modiff::conv2d`` and ``modiff::linear``: schemas, output shapes, and their eager form.

Importing this module defines the library for PyTorch. Export records calls to these operators; in the program
they become calls of the C++ kernels, which write lattice, accumulator, history and counters in place. The eager
form (``edge.eager``) runs the reference arithmetic, so that an exported graph can be executed on the host as a check.

Shapes (see ``edge.packing`` for the weights):
    x            float32 [N, C, H, W]; linear [..., C]
    step         int64 [1]
    lattice      int16 [planes, N, H, W, C]; linear [planes, P, C]; [1] when direct
    accumulator  int32 [planes, N, OH, OW, OC]; linear [planes, P, OC]; [1] when direct
    history      float32 [N, OH, OW, OC]; linear [P, OC]; [1] when the plan never extrapolates
    counters     int32 [4]: refreshes, last refreshed step, the one before, reserved
    weight       int8 [packed]; residual_weight likewise, [1] when there is one plane
    scale        float32 [planes, OC]: s*w_c, and s*w_c/254
    bias         float32 [OC]
    table        int8 [T + 1, 8]; row T is the anchor
    output       float32 [N, OC, *output_size]; linear [..., OC]
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor
from torch.library import Library

from edge import eager_v1 as eager

NAMESPACE = "modiff1"

"""Changes whenever a schema or the meaning of an argument changes; the bundle records it."""

_COMMON = (
    "Tensor x, Tensor step, Tensor(a!) lattice, Tensor(b!) accumulator, Tensor(c!) history, Tensor(d!) counters, "
    "Tensor weight, Tensor residual_weight, Tensor scale, Tensor bias, Tensor table, "
    "float inverse_step, int lattice_bits, "
)
_ARGUMENTS = {
    "conv2d": _COMMON
    + "int[] kernel, int[] stride, int[] padding, int[] dilation, int groups, bool transposed, bool direct, "
    "int[] output_size",
    "linear": _COMMON + "bool direct",
}


def schema(name: str, *, out: bool) -> str:
    """The schema of ``conv2d`` or ``linear``, functional (mutating its states) or with an ``out`` argument."""
    if out:
        return f"{name}.out({_ARGUMENTS[name]}, *, Tensor(z!) out) -> Tensor(z!)"
    return f"{name}({_ARGUMENTS[name]}) -> Tensor"


def conv2d_shape(  # noqa: PLR0917 - the operator's own arguments
    x: Tensor,
    step: Tensor,
    lattice: Tensor,
    accumulator: Tensor,
    history: Tensor,
    counters: Tensor,
    weight: Tensor,
    residual_weight: Tensor,
    scale: Tensor,
    bias: Tensor,
    table: Tensor,
    inverse_step: float,
    lattice_bits: int,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    transposed: bool,
    direct: bool,
    output_size: list[int],
) -> Tensor:
    """The empty output of ``modiff::conv2d``: float32 [N, OC, *output_size]."""
    del step, lattice, accumulator, history, counters, weight, residual_weight, bias, table
    del inverse_step, lattice_bits, kernel, stride, padding, dilation, groups, transposed, direct
    return x.new_empty([x.shape[0], scale.shape[1], *output_size])


def linear_shape(  # noqa: PLR0917 - the operator's own arguments
    x: Tensor,
    step: Tensor,
    lattice: Tensor,
    accumulator: Tensor,
    history: Tensor,
    counters: Tensor,
    weight: Tensor,
    residual_weight: Tensor,
    scale: Tensor,
    bias: Tensor,
    table: Tensor,
    inverse_step: float,
    lattice_bits: int,
    direct: bool,
) -> Tensor:
    """The empty output of ``modiff::linear``: float32 [..., OC]."""
    del step, lattice, accumulator, history, counters, weight, residual_weight, bias, table
    del inverse_step, lattice_bits, direct
    return x.new_empty([*x.shape[:-1], scale.shape[1]])


def _conv2d_out(*arguments: object, out: Tensor) -> Tensor:
    return out.copy_(eager.conv2d(*arguments))  # type: ignore[arg-type]


def _linear_out(*arguments: object, out: Tensor) -> Tensor:
    return out.copy_(eager.linear(*arguments))  # type: ignore[arg-type]


def _define() -> Library:
    """The library; PyTorch's registration functions carry no types."""
    library: Any = Library(NAMESPACE, "DEF")  # type: ignore[no-untyped-call]
    for name in _ARGUMENTS:
        for out in (False, True):
            library.define(schema(name, out=out))
    for name, function, key in (
        ("conv2d", eager.conv2d, "CPU"),
        ("conv2d", conv2d_shape, "Meta"),
        ("conv2d.out", _conv2d_out, "CPU"),
        ("linear", eager.linear, "CPU"),
        ("linear", linear_shape, "Meta"),
        ("linear.out", _linear_out, "CPU"),
    ):
        library.impl(name, function, key)
    return cast("Library", library)


LIBRARY = _define()
"""Keeps the definitions alive as long as this module is."""
