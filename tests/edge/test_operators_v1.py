"""The operators' schemas as the C++ side reads them, and their eager form against the oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calib import lattice
from calib.plan import LayerPlan, Mode, PlanRow
from edge import operators_v1 as operators
from edge.lower.layers import STATES, OperatorLayer, StepHolder, build_layer

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMON = (
    "Tensor x, Tensor step, Tensor(a!) lattice, Tensor(b!) accumulator, Tensor(c!) history, Tensor(d!) counters, "
    "Tensor weight, Tensor residual_weight, Tensor scale, Tensor bias, Tensor table, float inverse_step, "
    "int lattice_bits, "
)
GEOMETRY = "int[] kernel, int[] stride, int[] padding, int[] dilation, int groups, bool transposed, "
STEPS = 7


def random_plan(mode: Mode, seed: int, *, residual: bool) -> LayerPlan:
    generator = torch.Generator().manual_seed(seed)

    def draw(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    def row(*, least: int) -> PlanRow:
        passes = least + draw(3 - least)
        rest = tuple(draw(6) for _ in range(draw(3))) if residual else ()
        return PlanRow(tuple(draw(5) for _ in range(passes)), rest, extrapolates=passes == 0 and draw(2) == 1)

    least = 1 if mode is Mode.DIRECT else 0
    return LayerPlan(mode, tuple(row(least=least) for _ in range(STEPS)), row(least=1))


def random_layer(
    operator: lattice.Operator, weight_shape: Sequence[int], plan: LayerPlan, planes: int, seed: int
) -> lattice.LayerArithmetic:
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randint(-127, 128, weight_shape, generator=generator, dtype=torch.int8) for _ in range(planes)]
    outputs = operator.per_channel(weights[0]).shape[0]
    return lattice.LayerArithmetic(
        tuple(lattice.IntegerOperator(operator, weight) for weight in weights),
        torch.rand(planes, outputs, generator=generator) / 1000,
        torch.randn(outputs, generator=generator),
        torch.tensor(37.5),
        11,
        plan.extrapolates,
    )


def run_oracle(
    layer: lattice.LayerArithmetic, plan: LayerPlan, inputs: list[torch.Tensor], first: int
) -> tuple[list[torch.Tensor], lattice.LayerState]:
    outputs, state = [], lattice.fresh_state(layer, inputs[0])
    for offset, x in enumerate(inputs):
        if plan.mode is Mode.DIRECT:
            state = lattice.fresh_state(layer, x)
        fresh = offset == 0 and plan.mode is Mode.DELTA
        row = plan.anchor if fresh else plan.rows[first + offset]
        outputs.append(lattice.run_step(layer, state, x, row=row, step=first + offset))
    return outputs, state


def run_operator(
    module: OperatorLayer, holder: StepHolder, inputs: list[torch.Tensor], first: int
) -> list[torch.Tensor]:
    outputs = []
    for offset, x in enumerate(inputs):
        holder.step = torch.tensor([first + offset])
        outputs.append(module(x))
    return outputs


def moving_inputs(shape: Sequence[int], seed: int, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator)
    return [x := 0.9 * x + 0.2 * torch.randn(*shape, generator=generator) for _ in range(count)]


def test_schemas_are_those_of_the_contract() -> None:
    tail = "bool direct, int[] output_size) -> Tensor"
    assert str(torch.ops.modiff1.conv2d.default._schema) == f"modiff1::conv2d({COMMON}{GEOMETRY}{tail}"
    assert str(torch.ops.modiff1.linear.default._schema) == f"modiff1::linear({COMMON}bool direct) -> Tensor"
    for packet in (torch.ops.modiff1.conv2d, torch.ops.modiff1.linear):
        out = str(packet.out._schema)
        plain = str(packet.default._schema)
        arguments = plain[plain.index("(") + 1 : plain.rindex(")")]
        assert out == f"{packet.default._schema.name}.out({arguments}, *, Tensor(z!) out) -> Tensor(z!)"


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(["conv", "strided", "grouped", "transposed", "row", "transposed row", "linear"]),
    st.sampled_from([Mode.DELTA, Mode.DELTA, Mode.DIRECT]),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(0, 2**20),
)
def test_eager_form_is_the_oracle_in_another_layout(kind: str, mode: Mode, planes: int, first: int, seed: int) -> None:
    conv, transposed = lattice.Kind.CONV, lattice.Kind.TRANSPOSED
    operator, weight, x_shape = {
        "conv": (lattice.Operator(conv, padding=(1, 0)), (5, 3, 3, 2), (1, 3, 5, 4)),
        "strided": (lattice.Operator(conv, (2, 1), (1, 2), (1, 2)), (17, 6, 3, 2), (2, 6, 5, 6)),
        "grouped": (lattice.Operator(conv, groups=2, padding=(1, 1)), (6, 2, 3, 3), (1, 4, 3, 4)),
        "transposed": (lattice.Operator(transposed, (2, 2), (1, 0), (1, 2), 2, (1, 0)), (4, 3, 3, 2), (1, 4, 3, 4)),
        "row": (lattice.Operator(conv, (1, 2), (0, 1)), (5, 3, 1, 3), (2, 3, 7)),
        "transposed row": (lattice.Operator(transposed, (1, 2), (0, 1)), (3, 5, 1, 3), (1, 3, 7)),
        "linear": (lattice.Operator(lattice.Kind.LINEAR), (5, 6), (2, 3, 6)),
    }[kind]
    plan = random_plan(mode, seed, residual=planes == 2)
    layer = random_layer(operator, weight, plan, planes, seed)
    inputs = moving_inputs(x_shape, seed, STEPS - first)
    lifted = [x.unsqueeze(2) for x in inputs] if "row" in kind else inputs
    expected, state = run_oracle(layer, plan, lifted, first)
    if "row" in kind:
        expected = [y.squeeze(2) for y in expected]
    holder = StepHolder()
    module = build_layer(layer, plan, x_shape, expected[0].shape, holder)
    for ours, theirs in zip(run_operator(module, holder, inputs, first), expected, strict=True):
        assert torch.equal(ours, theirs)
    if mode is Mode.DIRECT:
        assert not any(getattr(module, name).any() for name in STATES)
        return
    for plane in range(planes):
        for buffer, wanted in ((module.lattice, state.lattice), (module.accumulator, state.accumulator)):
            channels_last = wanted[plane].permute(0, 2, 3, 1) if kind != "linear" else wanted[plane].flatten(0, -2)
            assert torch.equal(buffer[plane], channels_last)
    assert module.counters.tolist() == [state.refreshes, state.last_step, state.previous_step, 0]


def make_module(kind: lattice.Kind, mode: Mode = Mode.DELTA) -> tuple[OperatorLayer, torch.Tensor]:
    linear = kind is lattice.Kind.LINEAR
    plan = LayerPlan(mode, (PlanRow((1,), (2,)),) * STEPS, PlanRow((4, 0), (4,)))
    layer = random_layer(lattice.Operator(kind), (6, 4) if linear else (6, 4, 1, 1), plan, 2, 5)
    x = torch.randn(2, 3, 4) if linear else torch.randn(2, 4, 3, 5)
    holder = StepHolder()
    holder.step = torch.tensor([2])
    return build_layer(layer, plan, x.shape, (2, 3, 6) if linear else (2, 6, 3, 5), holder), x


def arguments_of(module: OperatorLayer, x: torch.Tensor) -> tuple[object, ...]:
    recorded: list[tuple[object, ...]] = []

    class Record(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
            if getattr(func, "namespace", "") == "modiff1" or "modiff" in str(func):
                recorded.append(args)
            return func(*args, **(kwargs or {}))

    with Record():
        module(x)
    return recorded[0]


@pytest.mark.parametrize("kind", [lattice.Kind.CONV, lattice.Kind.LINEAR])
@pytest.mark.parametrize("mode", [Mode.DELTA, Mode.DIRECT])
def test_fakes_aliases_and_out_variants_agree_with_the_eager_form(kind: lattice.Kind, mode: Mode) -> None:
    module, x = make_module(kind, mode)
    arguments = arguments_of(module, x)
    module.reset()
    packet = torch.ops.modiff1.linear if kind is lattice.Kind.LINEAR else torch.ops.modiff1.conv2d
    torch.library.opcheck(packet.default, arguments, test_utils=("test_schema", "test_faketensor"))
    module.reset()
    y = packet.default(*arguments)
    module.reset()
    out = torch.empty_like(y)
    assert packet.out(*arguments, out=out) is out
    assert torch.equal(out, y)


def test_linear_shape_keeps_leading_dimensions() -> None:
    module, x = make_module(lattice.Kind.LINEAR)
    assert module(x).shape == (2, 3, 6)
    assert operators.NAMESPACE == "modiff1"
