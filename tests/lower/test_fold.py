"""Tables for what depends on the step alone, and attention without masks."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional

from edge.lower.fold import TABLE_PREFIX, fold_step_branch, plain_attention

STEPS = 5


class TimeMixer(nn.Module):
    """A time branch with two exits, one value that needs the sample, and a buffer that changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("timesteps", torch.tensor([900, 700, 400, 100, 0]))
        self.register_buffer("calls", torch.zeros(1))
        self.embed = nn.Linear(6, 4)
        self.project = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, i: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        t = self.timesteps.index_select(0, i)
        angles = t[:, None] * torch.exp(-torch.arange(3, dtype=torch.float32))[None]
        hidden = functional.silu(self.embed(torch.cat([angles.sin(), angles.cos()], -1)))
        self.calls.add_(1)
        return x * self.project(hidden)[:, :, None] + hidden.sum() + self.calls * i + first


def exported(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.fx.GraphModule:
    graph: torch.fx.GraphModule = torch.export.export(module, inputs).module(check_guards=False)
    return graph


def step_inputs(i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(i)), torch.tensor([i]), torch.tensor([1])


@torch.no_grad()
def test_folding_changes_no_bit_and_removes_the_branch() -> None:
    torch.manual_seed(0)
    mixer = TimeMixer().eval()
    graph, plain = (exported(copy.deepcopy(mixer), step_inputs(0)) for _ in range(2))
    assert fold_step_branch(graph, STEPS) == 2
    for i in range(STEPS):
        assert torch.equal(graph(*step_inputs(i)), plain(*step_inputs(i)))
    called = {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}
    assert not called & {"aten.linear.default", "aten.sin.default", "aten.silu.default", "aten.cat.default"}
    assert {"aten.add_.Tensor", "aten.index_select.default"} <= called
    assert not dict(graph.named_parameters())
    assert {name for name, _ in graph.named_buffers()} == {"calls", f"{TABLE_PREFIX}0", f"{TABLE_PREFIX}1"}


@torch.no_grad()
def test_nothing_to_fold_is_left_alone() -> None:
    class Plain(nn.Module):
        def forward(self, x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
            return x * i + torch.rand(1)

    graph = exported(Plain(), (torch.ones(2), torch.tensor([1])))
    before = len(graph.graph.nodes)
    assert fold_step_branch(graph, STEPS) == 0
    assert len(graph.graph.nodes) == before


@torch.no_grad()
def test_large_values_are_grown_from_a_small_table() -> None:
    class Spread(nn.Module):
        def forward(self, x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
            level = (i * 0.5).exp() + 1
            return x + level.expand(256, 256).sqrt()

    inputs = (torch.ones(256, 256), torch.tensor([1]))
    graph, plain = (exported(Spread(), inputs) for _ in range(2))
    assert fold_step_branch(graph, STEPS) == 1
    (table,) = dict(graph.named_buffers()).values()
    assert table.shape == (STEPS, 1)
    assert torch.equal(graph(*inputs), plain(*inputs))


class Attends(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.options = options

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return functional.scaled_dot_product_attention(q, k, v, **self.options)  # type: ignore[arg-type]


def attention_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    return torch.randn(1, 2, 5, 4), torch.randn(1, 2, 7, 4), torch.randn(1, 2, 7, 3)


@torch.no_grad()
def test_attention_is_two_products_around_a_softmax() -> None:
    for options in ({}, {"scale": 0.3}):
        inputs = attention_inputs()
        graph = exported(Attends(**options).eval(), inputs)
        assert plain_attention(graph) == 1
        called = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
        assert "aten.scaled_dot_product_attention.default" not in called
        torch.testing.assert_close(graph(*inputs), Attends(**options)(*inputs))


@torch.no_grad()
def test_masked_attention_stays() -> None:
    q, k, v = attention_inputs()
    for module in (Attends(is_causal=True), Attends(attn_mask=torch.ones(5, 7, dtype=torch.bool))):
        assert plain_attention(exported(module.eval(), (q, k, v))) == 0
