"""What follows a layer goes into it: shift, activation, gate and residual, in the order of the operator.

Only what is the sole reader of a layer's output can be part of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edge.calls import Activation
from edge.lower.fuse.graph import ATEN, RESHAPE, Editor, arguments, dtype_of, is_tensor, set_arguments, shape_of
from edge.lower.fuse.prologue import is_scaled_add, keeps_channels, per_channel
from edge.lower.fuse.stages import ACTIVATE, LAYERS

_ADD, _MUL = ATEN.add.Tensor, ATEN.mul.Tensor


def take_epilogues(editor: Editor) -> None:
    """Fuses as long as there is something to fuse, in place."""
    for node in list(editor.graph.nodes):
        if node.target in LAYERS:
            while _take(editor, node):
                pass


def _take(editor: Editor, layer: fx.Node) -> bool:
    """Fuses the one reader of a layer's output; returns whether that was possible."""
    output, reader = layer, _only_reader(layer)
    if reader is not None and reader.target is RESHAPE and keeps_channels(reader):
        output, reader = reader, _only_reader(reader)
    if reader is None or dtype_of(reader) is not torch.float32 or shape_of(reader) != shape_of(output):
        return False
    given = arguments(layer)
    change = _change(editor, reader, output, given)
    if change is None:
        return False
    # What the reader reads may be computed after the layer: the layer moves to the reader's place.
    reader.prepend(layer)
    for name, value in change.items():
        whole = name == "add" and shape_of(value) != shape_of(layer)
        given[name] = editor.reshape(value, list(shape_of(layer)), at=layer) if whole else value
    set_arguments(layer, given)
    result = layer if output is layer else editor.reshape(layer, list(shape_of(reader)), at=reader)
    editor.replace(reader, result)
    if output is not layer and not output.users:
        editor.graph.erase_node(output)
    return True


def _only_reader(node: fx.Node) -> fx.Node | None:
    """The one call that reads a node, once."""
    if len(node.users) != 1:
        return None
    (reader,) = node.users
    inputs: list[Any] = []
    fx.map_arg((reader.args, reader.kwargs), inputs.append)
    return reader if reader.op == "call_function" and inputs.count(node) == 1 else None


def _change(  # noqa: PLR0911 - one for each part of the epilogue
    editor: Editor, reader: fx.Node, output: fx.Node, given: dict[str, Any]
) -> dict[str, Any] | None:
    """The arguments that let a layer do what ``reader`` does, or None."""
    gated, added = given["gate"] is not None, given["add"] is not None
    activated = given["out_activation"] != Activation.NONE
    if added:
        return None
    if reader.target is ACTIVATE:
        return None if gated or activated else {"out_activation": int(arguments(reader)["activation"])}
    if reader.target not in {_ADD, _MUL} or is_scaled_add(reader):
        return None
    first, second = reader.args[:2]
    other: Any = second if first is output else first
    if not is_tensor(other) or dtype_of(other) is not torch.float32:
        return None
    vector = per_channel(editor, other, output, at=reader)
    if reader.target is _MUL:
        return None if gated or vector is None else {"gate": vector}
    if vector is not None and not (gated or activated or given["shift"] is not None):
        return {"shift": vector}
    return {"add": other} if shape_of(other) == shape_of(output) else None
