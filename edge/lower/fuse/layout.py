"""Channels last everywhere: permutations sink through the graph until they meet their inverse.

Operator modules read and write channels last and permute at their borders (``edge.lower.layers``), and the model
between them is written channels first. Each rule here turns ``f(permute(a))`` into ``permute(f'(a))``, so that a
permutation wanders towards the end and disappears where the next operator permutes back. What no rule knows keeps
its permutations. On a graph that ``tidy`` has been through.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edge.calls import Norm
from edge.lower.fuse.graph import (
    ATEN,
    PERMUTE,
    RESHAPE,
    SLICE,
    Editor,
    arguments,
    dtype_of,
    is_permute,
    is_tensor,
    order_of,
    shape_of,
    tensor_argument,
)
from edge.lower.fuse.stages import StageMaker, Stages

_UPSAMPLE = ATEN.upsample_nearest2d.vec
_GROUP_NORM = ATEN.group_norm.default
_CAT = ATEN.cat.default
_PADS = (ATEN.pad.default, ATEN.constant_pad_nd.default)
_SMALL = 16
"""An operand this many times smaller than the result may be permuted without a second thought."""


def channels_last(editor: Editor, stages: StageMaker) -> None:
    """Sinks permutations through the whole graph, in place."""
    wanted = _wanted_channels_last(editor)
    for node in list(editor.graph.nodes):
        if node.op != "call_function":
            continue
        made = _sunk(editor, stages, node, wanted=node in wanted)
        if made is not None and made is not node:
            editor.replace(node, made)


def to_first(rank: int) -> list[int]:
    """The permutation [N, ..., C] -> [N, C, ...]."""
    return [0, rank - 1, *range(1, rank - 1)]


def to_last(rank: int) -> list[int]:
    """The permutation [N, C, ...] -> [N, ..., C]."""
    return [0, *range(2, rank), 1]


def _wanted_channels_last(editor: Editor) -> set[fx.Node]:
    """Values that some operator will read channels last, at the end of a chain of calls that have a rule here."""
    wanted: set[fx.Node] = set()
    for node in reversed(editor.graph.nodes):
        for user in node.users:
            border = is_permute(user) and order_of(user) == to_last(len(shape_of(node)))
            if border or user.target is _GROUP_NORM or (user in wanted and _has_rule(user)):
                wanted.add(node)
    return wanted


def _has_rule(node: fx.Node) -> bool:
    return node.target in {_CAT, SLICE, RESHAPE, _UPSAMPLE, *_PADS} or is_pointwise(node)


def is_pointwise(node: fx.Node) -> bool:
    """Whether each element of the result depends on the elements at its own position alone."""
    return node.op == "call_function" and torch.Tag.pointwise in getattr(node.target, "tags", ())


def _sunk(  # noqa: PLR0911 - one for each rule
    editor: Editor, stages: StageMaker, node: fx.Node, *, wanted: bool
) -> fx.Node | None:
    """What replaces ``node``, or None where no rule applies."""
    match node.target:
        case target if target is PERMUTE:
            return editor.permute(tensor_argument(node), order_of(node), at=node)
        case target if target is RESHAPE:
            return _reshape(editor, node)
        case target if target is _GROUP_NORM:
            return _group_norm(editor, stages, node)
        case target if target is _UPSAMPLE:
            return _upsample(editor, stages, node, wanted=wanted)
        case target if target is _CAT:
            return _cat(editor, node) if wanted else None
        case target if target is SLICE:
            return _slice(editor, node)
        case target if target in _PADS:
            return _pad(editor, node) if wanted else None
        case _:
            return _pointwise(editor, node) if wanted and is_pointwise(node) else None


def _reshape(editor: Editor, node: fx.Node) -> fx.Node:
    """Merging or splitting positions does not touch the channels; dimensions of one element may come and go."""
    source, shape = tensor_argument(node), list(shape_of(node))
    if not is_permute(source):
        return editor.reshape(source, shape, at=node)
    inner, order, given = tensor_argument(source), order_of(source), list(shape_of(source))
    if order == to_first(len(order)) and len(shape) >= 3 and shape[:2] == given[:2]:
        moved = editor.reshape(inner, [shape[0], *shape[2:], shape[1]], at=node)
        return editor.permute(moved, to_first(len(shape)), at=node)
    if [size for size in shape if size != 1] == [size for size in given if size != 1]:
        places = iter([dim for dim, size in zip(order, given, strict=True) if size != 1])
        keys = [next(places) if size != 1 else -1 for size in shape]
        before = sorted(range(len(shape)), key=keys.__getitem__)
        moved = editor.reshape(inner, [shape[dim] for dim in before], at=node)
        return editor.permute(moved, sorted(range(len(shape)), key=before.__getitem__), at=node)
    return editor.reshape(source, shape, at=node)


def _group_norm(editor: Editor, stages: StageMaker, node: fx.Node) -> fx.Node | None:
    given, rank = arguments(node), len(shape_of(node))
    if rank < 3 or dtype_of(node) is not torch.float32:
        return None
    x = editor.permute(given["input"], to_last(rank), at=node)
    made = stages.make(
        Stages(
            x,
            norm=Norm.GROUP,
            groups=given["num_groups"],
            eps=given["eps"],
            weight=given["weight"],
            bias=given["bias"],
        ),
        at=node,
    )
    return editor.permute(made, to_first(rank), at=node)


def _upsample(editor: Editor, stages: StageMaker, node: fx.Node, *, wanted: bool) -> fx.Node | None:
    """Nearest, to exactly twice the size."""
    source = tensor_argument(node)
    batch, channels, height, width = shape_of(source)
    doubled = shape_of(node) == (batch, channels, 2 * height, 2 * width)
    if not doubled or dtype_of(node) is not torch.float32 or not (wanted or is_permute(source)):
        return None
    x = editor.permute(source, to_last(4), at=node)
    return editor.permute(stages.make(Stages(x, upsample=2), at=node), to_first(4), at=node)


def _cat(editor: Editor, node: fx.Node) -> fx.Node | None:
    parts: list[fx.Node] = list(node.args[0])  # type: ignore[arg-type]
    dim = int(arguments(node)["dim"]) % len(shape_of(node))
    order = _common_order(parts)
    if order is None:
        return None
    inner = [_turned_back(editor, part, order, at=node) for part in parts]
    return editor.permute(editor.call(_CAT, inner, order[dim], at=node), order, at=node)


def _slice(editor: Editor, node: fx.Node) -> fx.Node | None:
    source = tensor_argument(node)
    if not is_permute(source):
        return None
    dim, *rest = node.args[1:] if len(node.args) > 1 else (0,)
    order = order_of(source)
    inner = editor.call(SLICE, source.args[0], order[int(dim)], *rest, at=node)  # type: ignore[arg-type]
    return editor.permute(inner, order, at=node)


def _pad(editor: Editor, node: fx.Node) -> fx.Node | None:
    source, given = tensor_argument(node), arguments(node)
    if not is_permute(source) or given.get("mode", "constant") != "constant":
        return None
    order, pads = order_of(source), list(given["pad"])
    by_dim = [[0, 0] for _ in order]
    for position in range(len(pads) // 2):
        by_dim[order[len(order) - 1 - position]] = pads[2 * position : 2 * position + 2]
    turned = [amount for pair in reversed(by_dim) for amount in pair]
    while turned[-2:] == [0, 0]:
        turned = turned[:-2]
    inner = editor.call(ATEN.constant_pad_nd.default, source.args[0], turned, given["value"] or 0.0, at=node)
    return editor.permute(inner, order, at=node)


def _pointwise(editor: Editor, node: fx.Node) -> fx.Node | None:
    rank = len(shape_of(node))
    tensors = [argument for argument in node.all_input_nodes if is_tensor(argument)]
    if len(tensors) != len(node.all_input_nodes):
        return None
    large = [t for t in tensors if _size(t) * _SMALL > _size(node)]
    order = _common_order(large)
    if order is None or len(order) != rank:
        return None
    inner: dict[fx.Node, Any] = {tensor: _turned_back(editor, tensor, order, at=node) for tensor in tensors}
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda argument: inner[argument])
    return editor.permute(editor.call(node.target, *args, at=node, **kwargs), order, at=node)


def _common_order(parts: list[fx.Node]) -> list[int] | None:
    """The permutation under which the parts were computed; those that were not are worth one if it is the usual one."""
    permuted = [part for part in parts if is_permute(part)]
    orders = [order_of(part) for part in permuted]
    if not orders or any(order != orders[0] for order in orders):
        return None
    if len(permuted) < len(parts) and orders[0] != to_first(len(orders[0])):
        return None
    return orders[0]


def _turned_back(editor: Editor, part: fx.Node, order: list[int], *, at: fx.Node) -> fx.Node:
    """``part`` before the permutation ``order``, with as many dimensions; what has one element stays."""
    shape = shape_of(part)
    if not shape:
        return part
    full = editor.reshape(part, [*[1] * (len(order) - len(shape)), *shape], at=at) if len(shape) < len(order) else part
    return editor.permute(full, sorted(range(len(order)), key=order.__getitem__), at=at)


def _size(node: fx.Node) -> int:
    return torch.Size(shape_of(node)).numel()
