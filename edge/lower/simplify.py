"""Removes what changes nothing: on the device each such node would copy an activation.

Two places: on the exported module, where scalars are still Python numbers, and on the edge program, where every
tensor is contiguous and every view is a copy, so that order and shape alone decide whether a node does anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from executorch.exir.dialects._ops import ops as exir_ops
from executorch.exir.pass_base import PassBase, PassResult

if TYPE_CHECKING:
    from torch import fx

_SCALINGS = (torch.ops.aten.div.Tensor, torch.ops.aten.mul.Tensor)
_PERMUTATIONS = (torch.ops.aten.permute.default, torch.ops.aten.transpose.int)
_ATEN_CLONE = torch.ops.aten.clone.default
_DROPOUT = torch.ops.aten.dropout.default

_CLONE = exir_ops.edge.dim_order_ops._clone_dim_order.default  # noqa: SLF001 - the operator's name
_EXPAND = exir_ops.edge.aten.expand_copy.default
_PERMUTE = exir_ops.edge.aten.permute_copy.default


def drop_unit_scalings(module: fx.GraphModule) -> int:
    """Removes divisions and products by 1, and dropout outside training; returns how many."""
    dropped = 0
    for node in list(module.graph.nodes):
        scaling = node.target in _SCALINGS and isinstance(node.args[1], (int, float)) and node.args[1] == 1
        dropout = node.target is _DROPOUT and not node.args[2]
        if node.op == "call_function" and (scaling or dropout):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
            dropped += 1
    module.recompile()
    return dropped


def settle_orders(module: fx.GraphModule) -> None:
    """Lets every permutation give a contiguous tensor, as it does on the device.

    As views they hand their order on to what follows, and ExecuTorch would plan tensors of orders that its kernels
    refuse to mix. ``DropCopies`` removes the copies.
    """
    for node in list(module.graph.nodes):
        if node.target not in _PERMUTATIONS:
            continue
        with module.graph.inserting_after(node):
            settled = module.graph.call_function(_ATEN_CLONE, (node,), {"memory_format": torch.contiguous_format})
        node.replace_all_uses_with(settled, delete_user_cb=lambda user, keep=settled: user is not keep)
    module.recompile()


class DropCopies(PassBase):  # type: ignore[misc]
    """Edge pass: clones in the same order, expansions to the same shape; two permutations become one or none."""

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        """Changes the graph in place."""
        changed = False
        for node in list(graph_module.graph.nodes):
            changed |= _compose_permutations(node)
            source = _same_as(node)
            if source is not None and not any(user.op == "output" for user in node.users):
                node.replace_all_uses_with(source)
                changed = True
        graph_module.graph.eliminate_dead_code()
        graph_module.recompile()
        return PassResult(graph_module, changed)


def _same_as(node: fx.Node) -> fx.Node | None:
    """The earlier node that holds the same tensor, or None."""
    if node.target not in {_CLONE, _EXPAND, _PERMUTE}:
        return None
    source = _source(node)
    if node.target is _PERMUTE:
        return source if _order(node) == list(range(len(_order(node)))) else None
    return source if _same_layout(node, source) else None


def _compose_permutations(node: fx.Node) -> bool:
    """Lets a permutation of a permutation read the first one's input."""
    if node.target is not _PERMUTE or _source(node).target is not _PERMUTE:
        return False
    first, second = _order(_source(node)), _order(node)
    node.args = (_source(_source(node)), [first[dim] for dim in second])
    return True


def _source(node: fx.Node) -> fx.Node:
    """The tensor that a copy is made of."""
    return cast("fx.Node", node.args[0])


def _order(permutation: fx.Node) -> list[int]:
    """Dimensions of a permutation, counted from the front."""
    dims = cast("list[int]", permutation.args[1])
    return [dim % len(dims) for dim in dims]


def _same_layout(node: fx.Node, source: fx.Node) -> bool:
    """Whether both hold the same type in the same shape, both contiguous."""
    ours, theirs = node.meta["val"], source.meta["val"]
    same = ours.dtype == theirs.dtype and ours.shape == theirs.shape
    return bool(same and ours.is_contiguous() and theirs.is_contiguous())
