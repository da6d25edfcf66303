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
_STEPS = "step_count"


def fuse(module: fx.GraphModule, steps: int) -> bool:
    """Fuses what surrounds the modulated operators into them, in place.

    Args:
        module: of an exported step program, with placeholders ``i`` and ``first`` (int64 [1]).
        steps: T.

    Returns:
        Whether the graph was fused. False, with the graph's meaning unchanged, when the model writes into views of
        its activations.
    """
    editor = Editor(module)
    try:
        tidy(editor)
    except AliasesAreWritten:
        module.recompile()
        return False
    row = _row(editor, steps)
    active = editor.constant(f"{ACTIVE_PREFIX}always", torch.ones(steps + 1, dtype=torch.int8), at=row)
    stages = StageMaker(editor, row, active)
    editor.kept |= {row, active}
    take_attention(editor, row, active)
    channels_last(editor, stages)
    drop_unread(editor)
    recognize(editor, stages)
    join(editor, stages)
    take_epilogues(editor)
    drop_unread(editor)
    switch_off_unread(editor, steps, row)
    editor.kept.clear()
    drop_unread(editor)
    module.graph.lint()
    module.recompile()
    return True


def _row(editor: Editor, steps: int) -> fx.Node:
    """The row of ``active`` tables: the step, T at a job's first step; inserted before everything that computes."""
    inputs = {str(node.target): node for node in editor.graph.nodes if node.op == "placeholder"}
    step, first = inputs[STEP_INPUT], inputs[FIRST_INPUT]
    start = next(node for node in editor.graph.nodes if node.op not in {"placeholder", "get_attr"})
    last = editor.constant(_STEPS, torch.tensor([steps]), at=start)
    missing = editor.call(ATEN.sub.Tensor, last, step, at=start)
    return editor.call(ATEN.add.Tensor, step, editor.call(ATEN.mul.Tensor, first, missing, at=start), at=start)
