"""Graph passes before lowering: constant tables for what depends on the step alone, and plain attention.

The passes work on the module of an exported program (before functionalization, where a mutation is still a call on
its buffer) and keep its results: a table row is the very value that the nodes computed on the host, so that device
and host agree on the time embedding to the last bit.
"""

from __future__ import annotations

from itertools import count
from math import sqrt
from typing import Any, cast

import torch
from torch import Tensor, fx

STEP_INPUT = "i"
TABLE_PREFIX = "step_table_"
MAX_ROW_ELEMENTS = 1 << 14
"""Larger values are computed at each step from the table of a smaller one: T images would swell the program."""

_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def fold_step_branch(module: fx.GraphModule, steps: int) -> int:
    """Replaces every value that depends on the step index and constants only by a row of a table.

    Values are computed for i = 0..steps-1 as the graph computes them. Nodes that change a buffer, and what follows
    them, are not touched.

    Args:
        module: has a placeholder ``i`` (int64 [1]); changed in place.
        steps: T.

    Returns:
        How many tables were made.
    """
    branch = _step_branch(module)
    frontier = [node for node in branch if any(user not in branch for user in node.users) and not _is_row(node)]
    if not frontier:
        return 0
    values = [_evaluate(module, branch, frontier, i) for i in range(steps)]
    step = _placeholder(module, STEP_INPUT)
    free = (name for index in count() if not hasattr(module, name := f"{TABLE_PREFIX}{index}"))
    for node, name in zip(frontier, free, strict=False):
        rows = [value[node] for value in values]
        module.register_buffer(name, torch.stack([row.reshape(-1) for row in rows]).contiguous())
        with module.graph.inserting_before(node):
            table = module.graph.get_attr(name)
            row = module.graph.call_function(torch.ops.aten.index_select.default, (table, 0, step))
            if rows[0].dim() != 2 or rows[0].shape[0] != 1:
                row = module.graph.call_function(torch.ops.aten.view.default, (row, list(rows[0].shape)))
        node.replace_all_uses_with(row)
    clean(module)
    return len(frontier)


def plain_attention(module: fx.GraphModule) -> int:
    """Writes unmasked attention as two products around a softmax; returns how many were rewritten.

    The stock decomposition guards against rows that are masked altogether (eq, any, where over the whole score
    matrix); without a mask there is no such row.
    """
    rewritten = 0
    for node in list(module.graph.nodes):
        if node.op != "call_function" or node.target is not _ATTENTION:
            continue
        arguments: list[Any] = list(node.args)
        query, key, value, mask, dropout, causal = arguments + [None, 0.0, False][len(arguments) - 3 :]
        named = [node.kwargs.get(name) for name in ("attn_mask", "dropout_p", "is_causal", "enable_gqa")]
        if mask is not None or dropout or causal or any(named):
            continue
        scale = node.kwargs.get("scale") or 1.0 / sqrt(query.meta["val"].shape[-1])
        call = module.graph.call_function
        with module.graph.inserting_before(node):
            scaled = call(torch.ops.aten.mul.Tensor, (query, scale))
            turned = call(torch.ops.aten.transpose.int, (key, -2, -1))
            scores = call(torch.ops.aten.matmul.default, (scaled, turned))
            weights = call(torch.ops.aten.softmax.int, (scores, -1))
            mixed = call(torch.ops.aten.matmul.default, (weights, value))
        node.replace_all_uses_with(mixed)
        rewritten += 1
    clean(module)
    return rewritten


def clean(module: fx.GraphModule) -> None:
    """Drops nodes without users and constants without nodes, and recompiles."""
    module.graph.eliminate_dead_code(is_impure_node=_changes_something)
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in [*dict(module.named_parameters()), *dict(module.named_buffers())]:
        if name not in used:
            owner, _, leaf = name.rpartition(".")
            delattr(module.get_submodule(owner), leaf)
    module.graph.lint()
    module.recompile()


def _step_branch(module: fx.GraphModule) -> dict[fx.Node, None]:
    """Calls that depend on the step input and otherwise on unchanged constants only, in graph order."""
    step = _placeholder(module, STEP_INPUT)
    changed = {argument for node in module.graph.nodes for argument in _changed_arguments(node)}
    constant = {node for node in module.graph.nodes if node.op == "get_attr" and node not in changed}
    known: set[fx.Node] = {step, *constant}
    branch: dict[fx.Node, None] = {}
    for node in module.graph.nodes:
        if node.op != "call_function" or _changes_something(node) or _draws_random(node) or node in changed:
            continue
        inputs, value = node.all_input_nodes, node.meta.get("val")
        if not isinstance(value, Tensor) or value.numel() > MAX_ROW_ELEMENTS:
            continue
        if not all(argument in known for argument in inputs):
            continue
        known.add(node)
        if any(argument is step or argument in branch for argument in inputs):
            branch[node] = None
    return branch


def _is_row(node: fx.Node) -> bool:
    """Whether a value is a row of a table already."""
    while node.target in {torch.ops.aten.view.default, torch.ops.aten.reshape.default}:
        node = cast("fx.Node", node.args[0])
    return node.target is torch.ops.aten.index_select.default and cast("fx.Node", node.args[0]).op == "get_attr"


def _evaluate(
    module: fx.GraphModule, branch: dict[fx.Node, None], wanted: list[fx.Node], step: int
) -> dict[fx.Node, Tensor]:
    """Values of ``wanted`` at one step."""
    values: dict[fx.Node, Any] = {_placeholder(module, STEP_INPUT): torch.tensor([step])}

    def value(node: fx.Node) -> Any:  # noqa: ANN401 - whatever a node holds
        if node not in values:
            if node.op == "get_attr":
                values[node] = _attribute(module, str(node.target))
            else:
                function: Any = node.target
                values[node] = function(*fx.map_arg(node.args, value), **fx.map_arg(node.kwargs, value))
        return values[node]

    with torch.no_grad():
        for node in branch:
            value(node)
    return {node: values[node].detach() for node in wanted}


def _attribute(module: fx.GraphModule, name: str) -> Tensor:
    owner, _, leaf = name.rpartition(".")
    attribute: Tensor = getattr(module.get_submodule(owner), leaf)
    return attribute


def _placeholder(module: fx.GraphModule, name: str) -> fx.Node:
    found: fx.Node = next(node for node in module.graph.nodes if node.op == "placeholder" and node.target == name)
    return found


def _changed_arguments(node: fx.Node) -> list[fx.Node]:
    """The argument nodes that a call writes to."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return []
    written = [
        node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
        for position, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return [argument for argument in written if isinstance(argument, fx.Node)]


def _draws_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _changes_something(node: fx.Node) -> bool:
    return node.op in {"placeholder", "output"} or bool(_changed_arguments(node))
