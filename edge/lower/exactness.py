"""Which operators give the same bits on every machine, and which do not.

A program is *exact* when every operator in it is: then the host's engine predicts a device's output bit for bit.
Exact are the kit's own operators, those that move data, elementwise operators that round once, and those of
ExecuTorch's that round in an order that its source fixes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from edge.lower.inspect import STATE_ARGUMENTS

if TYPE_CHECKING:
    from collections.abc import Iterable


class Cost(StrEnum):
    """What an instruction of a program is to its user."""

    OURS = "ours"
    """An operator of the kit."""
    MOVES = "moves data"
    """Copies, and nothing else; exact."""
    ROUNDS_ONCE = "rounds once"
    """One float operation an element; exact."""
    FIXED_ORDER = "sums in a fixed order"
    """Plain loops of ExecuTorch's without a product that a compiler could contract; exact."""
    PORTABLE = "portable"
    """ExecuTorch's kernel, whose bits depend on the machine; often slow."""


_MOVES = frozenset(
    {
        "aten::_clone_dim_order.out",
        "aten::as_strided_copy.out",
        "aten::cat.out",
        "aten::clone.out",
        "aten::constant_pad_nd.out",
        "aten::copy_",
        "aten::embedding.out",
        "aten::expand_copy.out",
        "aten::full.out",
        "aten::full_like.out",
        "aten::index_select.out",
        "aten::permute_copy.out",
        "aten::pixel_shuffle.out",
        "aten::pixel_unshuffle.out",
        "aten::repeat.out",
        "aten::select_copy.int_out",
        "aten::slice_copy.Tensor_out",
        "aten::split_copy.Tensor_out",
        "aten::split_with_sizes_copy.out",
        "aten::squeeze_copy.dims_out",
        "aten::t_copy.out",
        "aten::transpose_copy.int_out",
        "aten::unbind_copy.int_out",
        "aten::unsqueeze_copy.out",
        "aten::upsample_nearest2d.vec_out",
        "aten::view_copy.out",
        "dim_order_ops::_clone_dim_order.out",
        "dim_order_ops::_to_dim_order_copy.out",
        "executorch_prim::et_view.default",
    }
)
_ROUNDS_ONCE = frozenset(
    {
        "aten::abs.out",
        "aten::add.out",
        "aten::clamp.out",
        "aten::clamp.Tensor_out",
        "aten::maximum.out",
        "aten::minimum.out",
        "aten::mul.out",
        "aten::mul.Scalar_out",
        "aten::neg.out",
        "aten::relu.out",
        "aten::sub.out",
        "aten::where.self_out",
    }
)
"""``add`` and ``sub`` without a factor; ``edge.lower.export`` sees to it."""

_FIXED_ORDER = frozenset({"aten::avg_pool2d.out"})
"""``kernels/portable/cpu/op_avg_pool2d.cpp``: adds row by row, divides once."""


def cost_of(operator: str) -> Cost:
    """The kind of an operator, ``namespace::name.overload``."""
    if operator in STATE_ARGUMENTS:
        return Cost.OURS
    if operator in _MOVES:
        return Cost.MOVES
    if operator in _ROUNDS_ONCE:
        return Cost.ROUNDS_ONCE
    return Cost.FIXED_ORDER if operator in _FIXED_ORDER else Cost.PORTABLE


def are_exact(operators: Iterable[str]) -> bool:
    """Whether a program of these operators gives the same bits everywhere."""
    return all(cost_of(operator) is not Cost.PORTABLE for operator in operators)
