"""Who is read at which step: what nobody reads is not computed.

An operator is live at a step when it has passes there, or when a consumer that reads it there is live. A modulated
layer reads its input only at steps with passes, a reuse point its block only where it refreshes. What is not live is
switched off: column ``skip`` of a layer's plan table, a row of the ``active`` table of an operator without states.

A job may start at any step, and its first step computes everything: states are fresh then. Layers and reuse points
know by their counters; the others are handed row T of their table, which is always on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from edge.lower.fuse.graph import Editor, arguments, set_arguments
from edge.lower.fuse.stages import LAYERS

if TYPE_CHECKING:
    from torch import fx

REUSE = torch.ops.modiff.reuse.default
PASSES, RESIDUAL_PASSES, SKIP = 0, 3, 7
"""Columns of a plan table."""
_PROLOGUE = ("x", "skip", "norm_weight", "norm_bias")
_REFRESH = 0
ACTIVE_PREFIX = "active_"


def switch_off_unread(editor: Editor, steps: int, row: fx.Node) -> int:
    """Writes the tables of every operator that has steps at which nobody reads it.

    Args:
        editor: of a graph whose stateless operators share one table that is always on.
        steps: T.
        row: node of the row of ``active`` tables: the step, T at a job's first step.

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
        given = arguments(node)
        if node.target in LAYERS:
            off += _skip(editor, node, given, needed, row)
        elif _is_stateless(node):
            key = tuple(needed.tolist())
            if key not in tables:
                table = torch.cat([needed.to(torch.int8), torch.ones(1, dtype=torch.int8)])
                first = next(iter(editor.graph.nodes))
                tables[key] = editor.constant(f"{ACTIVE_PREFIX}{len(tables)}", table, at=first)
            set_arguments(node, given | {"active": tables[key]})
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


def _skip(editor: Editor, layer: fx.Node, given: dict[str, Any], needed: Tensor, row: fx.Node) -> int:
    """Sets column ``skip``; returns 1 where that was possible.

    A direct layer has no states that could tell it a job's first step. It is handed row T there, which then must hold
    what any row holds: a direct layer whose rows differ is never off.
    """
    table = editor.attribute(given["table"]).clone()
    steps = needed.shape[0]
    if given["direct"]:
        if bool((table[:steps] != table[0]).any()):
            return 0
        table[steps] = table[0]
    table[:steps, SKIP] = (~needed).to(torch.int8)
    if given["direct"]:
        table[:steps, PASSES] *= needed.to(torch.int8)
        table[:steps, RESIDUAL_PASSES] *= needed.to(torch.int8)
        given = given | {"step": row}
    editor.set_attribute(given["table"], table)
    set_arguments(layer, given)
    return 1
