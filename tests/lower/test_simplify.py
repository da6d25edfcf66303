"""Nodes that change nothing are removed, those that do something stay."""

from __future__ import annotations

from collections import Counter

import torch
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from torch import nn
from torch.nn import functional

from edge.lower.simplify import DropCopies, drop_unit_scalings


class Wasteful(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        same = x.transpose(1, 2).permute(0, 2, 1).contiguous() + 1
        moved = same.permute(1, 2, 0).permute(1, 0, 2).clone()
        grown = x.mean(1, keepdim=True).expand(2, 3, 4) * x.expand(2, 3, 4)
        return same * 2, moved * 2, grown, x.clone()


def edge_calls(passes: list[DropCopies]) -> tuple[Counter[str], torch.nn.Module, torch.Tensor]:
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    lowered = to_edge_transform_and_lower(
        torch.export.export(Wasteful().eval(), (x,)),
        transform_passes=passes,
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    ).exported_program()
    names = (node.target.name() for node in lowered.graph.nodes if node.op == "call_function")
    return Counter(names), lowered.module(), x


def test_copies_go_and_results_stay() -> None:
    before, _, _ = edge_calls([])
    after, module, x = edge_calls([DropCopies()])
    assert before["aten::permute_copy"] == 4
    assert after["aten::permute_copy"] == 1, "two that undo each other go, two others become one"
    assert before["aten::expand_copy"] == 2
    assert after["aten::expand_copy"] == 1, "the one that grows stays"
    assert after["dim_order_ops::_clone_dim_order"] == 1, "an output may not be the input"
    for ours, theirs in zip(module(x), Wasteful()(x), strict=True):
        assert torch.equal(ours, theirs)


def test_unit_scalings_and_idle_dropout_go() -> None:
    class Scales(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.dropout(x / 1.0 * 1, 0.5, training=False) * 2 / 3

    x = torch.randn(4)
    graph = torch.export.export(Scales(), (x,)).module(check_guards=False)
    assert drop_unit_scalings(graph) == 3
    calls = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert calls == ["aten.mul.Tensor", "aten.div.Tensor"]
    assert torch.equal(graph(x), Scales()(x))
