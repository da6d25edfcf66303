"""The pass: all of ``edge.lower.fuse`` in order, on the module of an exported step program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edge.lower.fuse.attention import take_attention
from edge.lower.fuse.epilogue import take_epilogues
from edge.lower.fuse.graph import ATEN, Editor
from edge.lower.fuse.layout import channels_last
from edge.lower.fuse.liveness import ACTIVE_PREFIX, switch_off_unread
from edge.lower.fuse.prologue import join, recognize
from edge.lower.fuse.stages import StageMaker
from edge.lower.fuse.tidy import AliasesAreWritten, drop_unread, tidy

if TYPE_CHECKING:
    from torch import fx

STEP_INPUT, FIRST_INPUT = "i", "first"


def prepare(module: fx.GraphModule) -> bool:
    """Brings a graph into the one form that ``fuse`` (and folding) understands, in place.

    Returns:
        Whether it can be fused. False, with the graph's meaning unchanged, when the model writes into activations of
        which it reads other views.
    """
    editor = Editor(module)
    try:
        tidy(editor)
    except AliasesAreWritten:
        return False
    finally:
        module.recompile()
    return True


def fuse(module: fx.GraphModule, steps: int) -> None:
    """Fuses what surrounds the modulated operators into them, in place.

    Args:
        module: of an exported step program that ``prepare`` accepted, with placeholders ``i`` and ``first``
            (int64 [1]).
        steps: T.
    """
    editor = Editor(module)
    tidy(editor)  # the tables that folding made are views again
    slot = _slot(editor, steps)
    active = editor.constant(f"{ACTIVE_PREFIX}always", torch.ones(2 * steps, dtype=torch.int8), at=slot)
    stages = StageMaker(editor, slot, active)
    editor.kept |= {slot, active}
    take_attention(editor, slot, active)
    channels_last(editor, stages)
    drop_unread(editor)
    recognize(editor, stages)
    join(editor, stages)
    take_epilogues(editor)
    drop_unread(editor)
    switch_off_unread(editor, steps, slot)
    editor.kept.clear()
    drop_unread(editor)
    module.graph.lint()
    module.recompile()


def _slot(editor: Editor, steps: int) -> fx.Node:
    """The row of the tables of operators without states: i, or T + i at a job's first step.

    Inserted before everything that computes. A sampler that keeps such tables reads the same row.
    """
    inputs = {str(node.target): node for node in editor.graph.nodes if node.op == "placeholder"}
    step, first = inputs[STEP_INPUT], inputs[FIRST_INPUT]
    start = next(node for node in editor.graph.nodes if node.op not in {"placeholder", "get_attr"})
    return editor.call(ATEN.add.Tensor, step, editor.call(ATEN.mul.Tensor, first, steps, at=start), at=start)
