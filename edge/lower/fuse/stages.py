"""What may stand before a layer: concatenation, upsampling, normalization, activation, in this order.

``Stages`` is the value form of the prologue (``edge.calls``). A run of stages is written as one call of
``modiff::normalize`` or ``modiff::activate`` first; ``edge.lower.fuse.prologue`` joins runs and hands them to layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

import edge.operators  # noqa: F401  (defines torch.ops.modiff)
from edge.calls import Activation, Norm
from edge.lower.fuse.graph import Editor, arguments

NORMALIZE = torch.ops.modiff.normalize.default
ACTIVATE = torch.ops.modiff.activate.default
CONV = torch.ops.modiff.conv2d.default
LINEAR = torch.ops.modiff.linear.default
LAYERS = (CONV, LINEAR)
"""The modulated operators."""


@dataclass(frozen=True)
class Stages:
    """u = activation(norm(cat(x, skip))), upsampled; names and meaning as in ``edge.calls.Prologue``."""

    x: fx.Node
    skip: fx.Node | None = None
    norm: int = Norm.NONE
    groups: int = 1
    eps: float = 0.0
    weight: fx.Node | None = None
    bias: fx.Node | None = None
    activation: int = Activation.NONE
    upsample: int = 1

    @property
    def moves_only(self) -> bool:
        """Whether nothing is computed: data are found elsewhere, no more."""
        return self.norm == Norm.NONE and self.activation == Activation.NONE

    @property
    def first(self) -> int:
        """The first stage that is used: 0 skip, 1 norm, 2 activation, 3 upsample, 4 none."""
        return next((stage for stage, used in enumerate(self._used) if used), len(self._used))

    @property
    def last(self) -> int:
        """The last stage that is used, -1 for none."""
        return max((stage for stage, used in enumerate(self._used) if used), default=-1)

    @property
    def _used(self) -> tuple[bool, ...]:
        return (
            self.skip is not None,
            self.norm != Norm.NONE,
            self.activation != Activation.NONE,
            self.upsample != 1,
        )


class StageMaker:
    """Writes stages as calls.

    Args:
        editor: of the graph.
        step: node of the row that a stateless operator reads of its ``active`` table.
        active: node of that table.
    """

    def __init__(self, editor: Editor, step: fx.Node, active: fx.Node) -> None:
        self.editor, self.step, self.active = editor, step, active

    def make(self, stages: Stages, *, at: fx.Node) -> fx.Node:
        """Inserts the one call that runs ``stages`` before ``at``."""
        if stages.first == stages.last == 2:
            return self.editor.call(ACTIVATE, stages.x, self.step, self.active, int(stages.activation), at=at)
        return self.editor.call(
            NORMALIZE, stages.x, stages.skip, self.step, self.active,
            int(stages.norm), stages.groups, stages.eps, stages.weight, stages.bias,
            int(stages.activation), stages.upsample, at=at,
        )  # fmt: skip


def stages_of(node: object) -> Stages | None:
    """The stages that a call runs, or None for any other node."""
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return None
    if node.target is ACTIVATE:
        given = arguments(node)
        return Stages(given["x"], activation=given["activation"])
    if node.target is not NORMALIZE:
        return None
    given = arguments(node)
    return Stages(
        given["x"],
        given["skip"],
        given["norm"],
        given["norm_groups"],
        given["norm_eps"],
        given["norm_weight"],
        given["norm_bias"],
        given["activation"],
        given["upsample"],
    )


def has_stages(layer: dict[str, Any]) -> bool:
    """Whether a layer's arguments hold a prologue already."""
    return (
        layer["skip"] is not None
        or layer["norm"] != Norm.NONE
        or layer["activation"] != Activation.NONE
        or layer.get("upsample", 1) != 1
    )
