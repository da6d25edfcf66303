"""The checks of an emitted program refuse copies, shared states and unexpected arenas."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.passes import MemoryPlanningPass
from torch import nn

from calib import lattice
from calib.plan import LayerPlan, Mode, PlanRow
from edge.errors import LoweringError
from edge.lower.inspect import MethodReport, check_operators, check_states, inspect_method, runtime_operators
from edge.lower.layers import NO_EPILOGUE, NO_PROLOGUE, OperatorLinear, StepHolder

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.filterwarnings("ignore:Mutation on a buffer")


def make_layer(holder: StepHolder) -> OperatorLinear:
    weight = torch.ones(4, 4, dtype=torch.int8)
    plane = lattice.IntegerOperator(lattice.Operator(lattice.Kind.LINEAR), weight)
    scale, bias, step = torch.ones(1, 4), torch.zeros(4), torch.tensor(1.0)
    plan = LayerPlan(Mode.DELTA, (PlanRow((0,)),), PlanRow((0,)))
    return OperatorLinear(lattice.LayerArithmetic((plane,), scale, bias, step, 13), plan, [3, 4], holder)


class TwoLayers(nn.Module):
    def __init__(self, call: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.holder = StepHolder()
        self.first, self.second = make_layer(self.holder), make_layer(self.holder)
        self.call = call

    def forward(self, x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        self.holder.step = i
        return self.call(self, x)


def report_of(call: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> tuple[MethodReport, dict[str, int]]:
    module = TwoLayers(call).eval()
    exported = torch.export.export(module, (torch.zeros(3, 4), torch.tensor([0])))
    lowered = to_edge_transform_and_lower(
        {"step": exported}, compile_config=EdgeCompileConfig(_check_ir_validity=False)
    ).to_executorch(ExecutorchBackendConfig(memory_planning_pass=MemoryPlanningPass(share_mutable_buffers=True)))
    sizes = {
        f"{layer}.{name}": buffer.numel() * buffer.element_size()
        for layer in ("first", "second")
        for name in ("lattice", "accumulator", "history", "counters")
        for buffer in [getattr(getattr(module, layer), name)]
    }
    return inspect_method(lowered.executorch_program, "step"), sizes


def call_operator(layer: OperatorLinear, x: torch.Tensor, lattice_state: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = torch.ops.modiff.linear(
        x, None, layer.step, lattice_state, layer.accumulator, layer.history, layer.counters,
        layer.packed_weight, layer.residual_weight, layer.scale, layer.output_bias, layer.table, 1.0, 13, False,
        *NO_PROLOGUE, *NO_EPILOGUE,
    )  # fmt: skip
    return y


@pytest.fixture(scope="module")
def good() -> tuple[MethodReport, dict[str, int]]:
    return report_of(lambda m, x: m.second(m.first(x)))


def test_states_in_place_pass(good: tuple[MethodReport, dict[str, int]]) -> None:
    report, sizes = good
    check_states(report, sizes)
    check_operators(report)
    assert report.operators == ("modiff::linear.out",)
    assert [len(call.states) for call in report.calls] == [4, 4]
    assert report.counts == {"modiff::linear.out": 2}
    assert report.state_bytes == 2 * (32 + 48 + 16 + 16)


def test_a_copied_state_is_refused() -> None:
    report, sizes = report_of(lambda m, x: m.second(call_operator(m.first, x, m.first.lattice.clone())))
    with pytest.raises(LoweringError, match="copy of its state"):
        check_states(report, sizes)


def test_a_shared_state_is_refused() -> None:
    report, sizes = report_of(lambda m, x: call_operator(m.second, m.first(x), m.first.lattice))
    with pytest.raises(LoweringError, match="two calls share one state"):
        check_states(report, sizes)


def test_a_state_that_others_read_is_refused() -> None:
    report, sizes = report_of(lambda m, x: m.second(m.first(x)) + m.first.lattice.float())
    with pytest.raises(LoweringError, match="touches an operator's state"):
        check_states(report, sizes)


def test_a_state_that_others_write_is_refused() -> None:
    def write(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y = m.second(m.first(x))
        m.first.history.copy_(y[0, :1])  # type: ignore[union-attr]
        return y  # type: ignore[no-any-return]

    report, sizes = report_of(write)
    with pytest.raises(LoweringError, match="touches an operator's state"):
        check_states(report, sizes)


def test_a_missing_copy_is_refused(good: tuple[MethodReport, dict[str, int]]) -> None:
    report, sizes = good
    with pytest.raises(LoweringError, match="0 copies into 0 states of the sampler, expected 1"):
        check_states(report, sizes | {"update.previous": 16})


def test_another_arena_is_refused(good: tuple[MethodReport, dict[str, int]]) -> None:
    report, sizes = good
    with pytest.raises(LoweringError, match="224 bytes instead of 240"):
        check_states(report, sizes | {"first.lattice": 33})
    with pytest.raises(LoweringError, match="no kernel for aten::unheard_of"):
        check_operators(dataclasses.replace(report, operators=("aten::add.out", "aten::unheard_of.out")))


def test_the_runtime_has_what_unets_need() -> None:
    needed = {"aten::native_group_norm.out", "aten::bmm.out", "aten::upsample_nearest2d.vec_out", "aten::copy_"}
    assert needed <= runtime_operators()
