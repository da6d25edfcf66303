"""Attention without a mask becomes ``modiff::attention``, which reads its heads side by side in the channels.

Recognized are ``scaled_dot_product_attention`` and its written-out form, softmax(q k^T) v. The head dimension is moved
back to where the projections wrote it; with the model's own transposition in front of it, that is no move at all.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

import torch

import edge.operators  # noqa: F401  (defines torch.ops.modiff)
from edge.lower.fuse.graph import ATEN, Editor, arguments, dtype_of, is_permute, is_tensor, order_of, shape_of
from edge.lower.fuse.tidy import drop_unread

if TYPE_CHECKING:
    from torch import fx

ATTENTION = torch.ops.modiff.attention.default
_FUSED = ATEN.scaled_dot_product_attention.default
_PRODUCTS = {ATEN.matmul.default, ATEN.bmm.default}
_SOFTMAX = {ATEN.softmax.int, ATEN._softmax.default}  # noqa: SLF001 - the operator's name
_MUL, _DIV = ATEN.mul.Tensor, ATEN.div.Tensor
_SWAPPED = {3: [0, 2, 1], 4: [0, 1, 3, 2]}


def take_attention(editor: Editor, step: fx.Node, active: fx.Node) -> None:
    """Rewrites every attention without a mask, in place.

    Args:
        editor: of a graph that ``tidy`` has been through.
        step: node of the row that the operator reads of ``active``.
        active: node of that table.
    """
    for node in list(editor.graph.nodes):
        found = _fused(node) or _written_out(node)
        if found is None:
            continue
        query, key, value, scale = found
        if not _fits(query, key, value):
            continue
        heads = shape_of(query)[1] if len(shape_of(query)) == 4 else 1
        sides = [_heads_last(editor, side, at=node) for side in (query, key, value)]
        mixed = editor.call(ATTENTION, *sides, step, active, heads, scale, at=node)
        editor.replace(node, _heads_first(editor, mixed, list(shape_of(node)), at=node))
    drop_unread(editor)


def _fused(node: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node, float] | None:
    """Query, key, value and scale of a ``scaled_dot_product_attention`` without mask."""
    if node.target is not _FUSED:
        return None
    given = arguments(node)
    if given["attn_mask"] is not None or given["dropout_p"] or given["is_causal"] or given["enable_gqa"]:
        return None
    scale = given["scale"] if given["scale"] is not None else 1.0 / sqrt(shape_of(given["query"])[-1])
    return given["query"], given["key"], given["value"], float(scale)


def _written_out(node: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node, float] | None:
    """The same of ``softmax((q * a) (k * b)^T * c, -1) v``."""
    if node.target not in _PRODUCTS:
        return None
    weights: Any = node.args[0]
    value: Any = node.args[1]
    if not is_tensor(weights) or weights.target not in _SOFTMAX:
        return None
    scores, dim = weights.args[:2]
    if dim not in {-1, len(shape_of(weights)) - 1} or len(weights.users) != 1:
        return None
    product, scale = _unscaled(scores)
    if product.target not in _PRODUCTS:
        return None
    query, query_scale = _unscaled(product.args[0])
    turned, key_scale = _unscaled(product.args[1])
    if not is_permute(turned) or order_of(turned) != _SWAPPED.get(len(shape_of(turned))):
        return None
    key, inner_scale = _unscaled(turned.args[0])
    return query, key, value, scale * query_scale * key_scale * inner_scale


def _unscaled(value: Any) -> tuple[fx.Node, float]:  # noqa: ANN401 - a node
    """A value without the numbers it is multiplied with, and their product."""
    scale = 1.0
    while value.target in {_MUL, _DIV} and isinstance(value.args[1], (int, float)) and len(value.users) == 1:
        scale = scale * value.args[1] if value.target is _MUL else scale / value.args[1]
        value = value.args[0]
    return value, scale


def _fits(query: fx.Node, key: fx.Node, value: fx.Node) -> bool:
    """Whether all three have the same images, heads and channels, and keys and values the same positions."""
    shapes = [shape_of(side) for side in (query, key, value)]
    if len(shapes[0]) not in {3, 4} or any(dtype_of(side) is not torch.float32 for side in (query, key, value)):
        return False
    around = {(*shape[:-2], shape[-1]) for shape in shapes}
    return len(around) == 1 and shapes[1] == shapes[2]


def _heads_last(editor: Editor, side: fx.Node, *, at: fx.Node) -> fx.Node:
    """[N, heads, P, D] -> [N, P, heads*D]."""
    shape = shape_of(side)
    if len(shape) == 3:
        return side
    turned = editor.permute(side, [0, 2, 1, 3], at=at)
    return editor.reshape(turned, [shape[0], shape[2], shape[1] * shape[3]], at=at)


def _heads_first(editor: Editor, mixed: fx.Node, shape: list[int], *, at: fx.Node) -> fx.Node:
    """[N, P, heads*D] -> [N, heads, P, D]."""
    if len(shape) == 3:
        return mixed
    split = editor.reshape(mixed, [shape[0], shape[2], shape[1], shape[3]], at=at)
    return editor.permute(split, [0, 2, 1, 3], at=at)
