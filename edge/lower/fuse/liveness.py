"""Who is read at which step: what nobody reads is not computed.

An operator is live at a step when it has passes there, or when a consumer that reads it there is live. A modulated
layer reads its input only at steps with passes, a reuse point its block only where it refreshes. What is not live is
switched off: column ``skip`` of a layer's plan table, a row of the ``active`` table of an operator without states.

A job may start at any step, and its first step computes everything: states are fresh then. Layers and reuse points
know by their counters. The others are handed the row T + i there, and their tables have 2T rows, of which the second
half is always on; a direct layer, which has no counters either, is handed row T, its anchor, where its own row has no
pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edge.lower.fuse.graph import ATEN, Editor, arguments, set_arguments
from edge.lower.fuse.stages import LAYERS

if TYPE_CHECKING:
    from torch import fx

REUSE = torch.ops.modiff.reuse.default
PASSES, RESIDUAL_PASSES, SKIP = 0, 3, 7
"""Columns of a plan table."""
_PROLOGUE = ("x", "skip", "norm_weight", "norm_bias")
_REFRESH = 0
ACTIVE_PREFIX, ROW_PREFIX = "active_", "row_of_"


def switch_off_unread(editor: Editor, steps: int, slot: fx.Node) -> int:
    """Writes the tables of every operator that has steps at which nobody reads it.

    Args:
        editor: of a graph whose stateless operators share one table that is always on.
        steps: T.
        slot: node of the row of ``active`` tables: i, T + i at a job's first step.

    Returns:
        How many operators are off at some step.
    """
    live = _live(editor, steps)
    tables: dict[tuple[int, ...], fx.Node] = {}
    off = 0
    for node in list(editor.graph.nodes):
        needed = live.get(node)
        if node.op != "call_function" or needed is None or bool(needed.all()):
            continue
        if node.target in LAYERS:
            _skip(editor, node, needed, slot)
            off += 1
        elif _is_stateless(node):
            key = tuple(needed.tolist())
            if key not in tables:
                table = torch.cat([needed, torch.ones_like(needed)]).to(torch.int8)
                first = next(iter(editor.graph.nodes))
                tables[key] = editor.constant(f"{ACTIVE_PREFIX}{len(tables)}", table, at=first)
            set_arguments(node, arguments(node) | {"active": tables[key]})
            off += 1
    return off


def _live(editor: Editor, steps: int) -> dict[fx.Node, Tensor]:
    """Per node, at which steps its value is needed or its states move: bool [T]."""
    live: dict[fx.Node, Tensor] = {}
    always, never = torch.ones(steps, dtype=torch.bool), torch.zeros(steps, dtype=torch.bool)
    for node in reversed(editor.graph.nodes):
        if node.op == "output":
            live[node] = always
            continue
        needed = never.clone()
        for user in node.users:
            needed |= _reads(editor, user, node, live[user], steps)
        if node.target in LAYERS:
            needed |= _passes(editor, node, steps) if not arguments(node)["direct"] else never
        elif node.op == "call_function" and (node.target is REUSE or _acts_on_state(node)):
            needed |= always
        live[node] = needed
    return live


def _reads(editor: Editor, user: fx.Node, node: fx.Node, live: Tensor, steps: int) -> Tensor:
    """At which steps ``user`` reads ``node``."""
    if user.target in LAYERS:
        given = arguments(user)
        passes = _passes(editor, user, steps)
        if given["direct"]:
            passes = passes & live
        in_prologue = any(given[name] is node for name in _PROLOGUE)
        elsewhere = any(value is node for name, value in given.items() if name not in _PROLOGUE)
        return (passes if in_prologue else torch.zeros_like(live)) | (live if elsewhere else torch.zeros_like(live))
    if user.target is REUSE and arguments(user)["x"] is node:
        return editor.attribute(arguments(user)["table"])[:steps] == _REFRESH
    return live


def _passes(editor: Editor, layer: fx.Node, steps: int) -> Tensor:
    table = editor.attribute(arguments(layer)["table"])[:steps]
    return (table[:, PASSES] > 0) | (table[:, RESIDUAL_PASSES] > 0)


def _acts_on_state(node: fx.Node) -> bool:
    """A call that writes a buffer which is no operator's, such as the sampler's own state."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable and node.target not in LAYERS


def _is_stateless(node: fx.Node) -> bool:
    return getattr(node.target, "namespace", "") == "modiff" and "active" in arguments(node)


def _skip(editor: Editor, layer: fx.Node, needed: Tensor, slot: fx.Node) -> None:
    """Sets column ``skip`` of a layer's table; a direct layer then has no passes either."""
    given = arguments(layer)
    table, steps = editor.attribute(given["table"]).clone(), needed.shape[0]
    table[:steps, SKIP] = (~needed).to(torch.int8)
    if given["direct"]:
        table[:steps, PASSES] *= needed.to(torch.int8)
        table[:steps, RESIDUAL_PASSES] *= needed.to(torch.int8)
        own = torch.arange(steps)
        rows = torch.cat([own, torch.where(table[:steps, PASSES] > 0, own, steps)])
        name = f"{ROW_PREFIX}{layer.name}"
        source = editor.constant(name, rows, at=layer)
        set_arguments(layer, given | {"step": editor.call(ATEN.index_select.default, source, 0, slot, at=layer)})
    editor.set_attribute(given["table"], table)
