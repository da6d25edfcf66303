"""The invariants of the arithmetic, over random operators, plans and inputs."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from calib.lattice import (
    IntegerOperator,
    Kind,
    LayerArithmetic,
    LayerState,
    Operator,
    StepCounts,
    fresh_state,
    quantize_change,
    read_output,
    run_pass,
    run_step,
)
from calib.plan import PlanRow
from calib.weights import lattice_bits, quantize_weight

EXAMPLES = settings(max_examples=60, deadline=None)


@st.composite
def operators(draw: st.DrawFn) -> tuple[Operator, tuple[int, ...], tuple[int, ...]]:
    """An operator, its weight's shape and its input's shape."""
    kind = draw(st.sampled_from(Kind))
    batch = draw(st.integers(1, 3))
    if kind is Kind.LINEAR:
        channels, out = draw(st.integers(1, 40)), draw(st.integers(1, 20))
        return Operator(kind), (out, channels), (batch, draw(st.integers(1, 6)), channels)
    pair = lambda low, high: (draw(st.integers(low, high)), draw(st.integers(low, high)))  # noqa: E731
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels, out = groups * draw(st.integers(1, 5)), groups * draw(st.integers(1, 5))
    kernel, stride, dilation, padding = pair(1, 4), pair(1, 3), pair(1, 2), pair(0, 3)
    height, width = (d * (k - 1) + 1 + draw(st.integers(0, 5)) for k, d in zip(kernel, dilation, strict=True))
    if kind is Kind.CONV:
        shape = (out, channels // groups, *kernel)
        operator = Operator(kind, stride, padding, dilation, groups)
    else:
        shape = (channels, out // groups, *kernel)
        padding = tuple(min(p, d * (k - 1) // 2) for p, k, d in zip(padding, kernel, dilation, strict=True))
        room = tuple(min(1, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True))
        operator = Operator(kind, stride, padding, dilation, groups, tuple(draw(st.integers(0, r)) for r in room))
    return operator, shape, (batch, channels, height, width)


@st.composite
def plan_rows(draw: st.DrawFn, bits: int) -> PlanRow:
    exponents = st.lists(st.integers(0, bits - 1), max_size=2).map(tuple)
    main = draw(exponents)
    return PlanRow(main, draw(exponents), bool(not main and draw(st.booleans())))


def make_layer(operator: Operator, shape: tuple[int, ...], *, bits: int, seed: int) -> LayerArithmetic:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    main, residual, scale = quantize_weight(operator, weight)
    bits = lattice_bits(operator, main, residual, wanted=bits)
    step = torch.tensor(4.0 / (2 ** (bits - 1) - 1))
    m0 = step * scale
    planes = (IntegerOperator(operator, main), IntegerOperator(operator, residual))
    bias = torch.linspace(-1, 1, len(scale))
    return LayerArithmetic(planes, torch.stack([m0, m0 / 254]), bias, step.reciprocal(), bits, keeps_history=True)


def exact(operator: Operator, lattice: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The operator in float64, where sums of these integers are exact."""
    return operator(lattice.double(), weight.double()).long()


def walk(shape: tuple[int, ...], steps: int, seed: int, size: float = 0.2) -> list[torch.Tensor]:
    """An input that drifts and, now and then, jumps far outside the lattice."""
    generator = torch.Generator().manual_seed(seed)
    x, path = torch.randn(shape, generator=generator), []
    for i in range(steps):
        x = 0.97 * x + size * torch.randn(shape, generator=generator)
        path.append(x * (30 if i % 7 == 5 else 1))
    return path


def assert_invariants(layer: LayerArithmetic, state: LayerState) -> None:
    for plane, lattice, accumulator in zip(layer.planes, state.lattice, state.accumulator, strict=True):
        assert torch.equal(accumulator.long(), exact(plane.operator, lattice, plane.weight))
        assert int(lattice.int().abs().max()) <= layer.limit


@EXAMPLES
@given(data=st.data(), geometry=operators(), bits=st.integers(9, 16), seed=st.integers(0, 99))
def test_the_accumulator_is_the_operator_of_the_lattice_under_any_plan(
    data: st.DataObject, geometry: tuple, bits: int, seed: int
) -> None:
    operator, weight_shape, input_shape = geometry
    layer = make_layer(operator, weight_shape, bits=bits, seed=seed)
    state = fresh_state(layer, torch.zeros(input_shape))
    for i, x in enumerate(walk(input_shape, 8, seed)):
        run_step(layer, state, x, row=data.draw(plan_rows(layer.lattice_bits)), step=i)
        assert_invariants(layer, state)


@EXAMPLES
@given(geometry=operators(), bits=st.integers(9, 16), seed=st.integers(0, 99), exponent=st.integers(0, 9))
def test_after_a_pass_the_lattice_is_within_half_a_unit_or_counted(
    geometry: tuple, bits: int, seed: int, exponent: int
) -> None:
    operator, weight_shape, input_shape = geometry
    layer = make_layer(operator, weight_shape, bits=bits, seed=seed)
    state = fresh_state(layer, torch.zeros(input_shape))
    for i, x in enumerate(walk(input_shape, 6, seed)):
        counts = StepCounts()
        run_step(layer, state, x, row=PlanRow((exponent,)), step=i, counts=counts)
        wanted = x.double() * layer.inverse_step.double()
        # float32 rounds x/s and x/s - A by at most 2^-23 of their size each.
        slack = (wanted.abs() + layer.limit) * 2.0**-22
        outside = (wanted - state.lattice[0].double()).abs() > 2.0 ** (exponent - 1) + slack
        assert int(outside.sum()) <= counts.saturated <= x.numel()


@EXAMPLES
@given(geometry=operators(), wanted=st.integers(8, 16), seed=st.integers(0, 99))
def test_lattice_bits_keep_the_largest_possible_accumulator_inside_int32(
    geometry: tuple, wanted: int, seed: int
) -> None:
    operator, weight_shape, input_shape = geometry
    layer = make_layer(operator, weight_shape, bits=wanted, seed=seed)
    for plane in layer.planes:
        worst = layer.limit * operator.per_channel(plane.weight).long().abs().sum(1).max()
        assert worst < 2**31
        magnitude = Operator.__call__(
            operator, torch.full(input_shape, float(layer.limit)).double(), plane.weight.double().abs()
        )
        assert magnitude.max() < 2**31


def test_lattice_bits_shrink_where_int32_has_no_room() -> None:
    operator = Operator(Kind.LINEAR)
    heavy = torch.full((1, 5000), 127, dtype=torch.int8)
    assert lattice_bits(operator, heavy, wanted=16) == 12
    assert lattice_bits(operator, heavy[:, :500], wanted=16) == 16
    # One more bit would overflow: the bound is tight.
    assert 2**11 * 127 * 5000 < 2**31 <= 2**12 * 127 * 5000


def test_a_thousand_steps_leave_no_drift() -> None:
    operator = Operator(Kind.CONV, (2, 1), (1, 1), (1, 1), 2)
    layer = make_layer(operator, (6, 2, 3, 3), bits=13, seed=1)
    shape = (2, 4, 6, 5)
    state = fresh_state(layer, torch.zeros(shape))
    rows = itertools.cycle(
        [PlanRow((3,)), PlanRow((), (), True), PlanRow((5, 0), (4,)), PlanRow((), (2, 0)), PlanRow((1,), (), False)]
    )
    x = torch.zeros(shape)
    for i, (x, row) in enumerate(zip(walk(shape, 1000, seed=3), rows, strict=False)):
        y = run_step(layer, state, x, row=row, step=i)
        assert torch.isfinite(y).all()
        if i % 50 == 49:
            assert_invariants(layer, state)
    assert state.refreshes == 600
    run_step(layer, state, x, row=PlanRow((6, 0), (6, 0)), step=1000)
    run_step(layer, state, x, row=PlanRow((0, 0), (0, 0)), step=1001)
    weight = layer.planes[0].weight.double() + layer.planes[1].weight.double() / 254
    scale = layer.scales[0].double()
    expected = operator(state.lattice[0].double(), weight) * scale.reshape(-1, 1, 1) + layer.bias.reshape(-1, 1, 1)
    torch.testing.assert_close(read_output(layer, state).double(), expected, rtol=1e-5, atol=1e-5)


@EXAMPLES
@given(geometry=operators(), seed=st.integers(0, 99))
def test_batch_entries_do_not_touch_each_other(geometry: tuple, seed: int) -> None:
    operator, weight_shape, input_shape = geometry
    layer = make_layer(operator, weight_shape, bits=13, seed=seed)
    together = fresh_state(layer, torch.zeros(input_shape))
    alone = fresh_state(layer, torch.zeros((1, *input_shape[1:])))
    for i, x in enumerate(walk(input_shape, 4, seed)):
        row = PlanRow((5, 0) if i == 0 else (2,), (5,) if i == 0 else ())
        a = run_step(layer, together, x, row=row, step=i)
        b = run_step(layer, alone, x[:1], row=row, step=i)
        assert torch.equal(a[:1], b)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e38])
def test_values_that_no_lattice_holds_are_counted_and_do_no_harm(value: float) -> None:
    layer = make_layer(Operator(Kind.LINEAR), (3, 4), bits=13, seed=0)
    state = fresh_state(layer, torch.zeros(1, 4))
    x = torch.tensor([[0.5, value, -0.5, 0.25]])
    counts = StepCounts()
    y = run_step(layer, state, x, row=PlanRow((5, 0)), step=0, counts=counts)
    assert counts.saturated == 1
    assert counts.elements == 4
    assert torch.isfinite(y).all()
    assert_invariants(layer, state)
    moved = int(state.lattice[0][0, 1])
    expected = 0 if value != value else (4095 if value > 0 else -4095)  # noqa: PLR0124
    assert moved == max(-layer.limit, min(layer.limit, expected))


def test_codes_round_to_even_and_stop_at_the_lattice_end() -> None:
    one = torch.tensor(1.0)
    x = torch.tensor([0.5, 1.5, -2.5, 126.5, 127.5, -300.0])
    codes, saturated = quantize_change(x, torch.zeros(6, dtype=torch.int16), 0, one, 4095)
    assert codes.tolist() == [0, 2, -2, 126, 128, -254]
    assert saturated == 1
    near_end = torch.tensor([4090, -4090], dtype=torch.int16)
    codes, saturated = quantize_change(torch.tensor([4200.0, -4200.0]), near_end, 1, one, 4095)
    assert codes.tolist() == [2, -2]
    assert saturated == 2


@pytest.mark.parametrize(
    ("wanted", "reached", "saturated"), [(127, 127, 0), (-200, -200, 0), (254, 254, 0), (300, 254, 1)]
)
def test_a_change_beyond_one_code_is_reached_in_the_same_pass(wanted: int, reached: int, saturated: int) -> None:
    layer = make_layer(Operator(Kind.LINEAR), (3, 4), bits=13, seed=0)
    state = fresh_state(layer, torch.zeros(1, 4))
    x = torch.tensor([[0.0, wanted, 3.0, -1.0]]) / layer.inverse_step
    assert run_pass(layer, state, 0, x, 0) == saturated
    assert state.lattice[0].tolist() == [[0, reached, 3, -1]]
    assert_invariants(layer, state)


def test_sixteen_lattice_bits_do_not_wrap_where_the_code_is_wide() -> None:
    layer = make_layer(Operator(Kind.LINEAR), (2, 2), bits=16, seed=0)
    state = fresh_state(layer, torch.zeros(1, 2))
    for x in (torch.full((1, 2), 9.0), torch.full((1, 2), -9.0), torch.full((1, 2), 9.0)):
        for exponent in (9, 9, 4, 0):
            run_pass(layer, state, 0, x, exponent)
            assert_invariants(layer, state)
        assert state.lattice[0].abs().min() > 32000


@EXAMPLES
@given(geometry=operators(), seed=st.integers(0, 99), magnitude=st.sampled_from([3, 127]))
def test_integer_operators_are_exact(geometry: tuple, seed: int, magnitude: int) -> None:
    operator, weight_shape, input_shape = geometry
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(-127, 128, weight_shape, generator=generator, dtype=torch.int8)
    codes = torch.randint(-magnitude, magnitude + 1, input_shape, generator=generator)
    assert torch.equal(IntegerOperator(operator, weight)(codes).long(), exact(operator, codes, weight))


@pytest.mark.parametrize("channels", [115, 116, 400])
def test_integer_operators_are_exact_at_the_edge_of_float32(channels: int) -> None:
    """The largest codes against the largest weights: 115 channels are the last that float32 may sum."""
    operator = Operator(Kind.CONV, padding=(1, 1))
    weight = torch.full((2, channels, 3, 3), 127, dtype=torch.int8)
    weight[1, ::2] = -127
    integer = IntegerOperator(operator, weight)
    assert integer._float_weight.dtype == (torch.float32 if channels == 115 else torch.float64)
    codes = torch.full((1, channels, 5, 5), 127)
    codes[:, 0, 2, 2] = 126
    assert torch.equal(integer(codes).long(), exact(operator, codes, weight))


def test_reuse_holds_then_extrapolates_on_the_line_through_two_refreshes() -> None:
    layer = make_layer(Operator(Kind.LINEAR), (3, 4), bits=13, seed=0)
    state = fresh_state(layer, torch.zeros(1, 4))
    first = run_step(layer, state, torch.full((1, 4), 0.5), row=PlanRow((5, 0)), step=3)
    held = run_step(layer, state, torch.full((1, 4), 9.0), row=PlanRow((), (), True), step=4)
    assert torch.equal(held, first)
    second = run_step(layer, state, torch.full((1, 4), 0.7), row=PlanRow((2,)), step=5)
    assert torch.equal(run_step(layer, state, torch.zeros(1, 4), row=PlanRow(()), step=6), second)
    further = run_step(layer, state, torch.zeros(1, 4), row=PlanRow((), (), True), step=8)
    assert torch.equal(further, second + torch.tensor(1.5) * (second - first))
    assert state.refreshes == 2


def test_history_is_the_output_before_the_newest_refresh_with_its_residual() -> None:
    layer = make_layer(Operator(Kind.LINEAR), (3, 4), bits=13, seed=0)
    state = fresh_state(layer, torch.zeros(1, 4))
    run_step(layer, state, torch.full((1, 4), 0.5), row=PlanRow((5, 0)), step=0)
    corrected = run_step(layer, state, torch.full((1, 4), 0.5), row=PlanRow((), (5,)), step=1)
    run_step(layer, state, torch.full((1, 4), 0.9), row=PlanRow((2,)), step=2)
    assert state.history is not None
    assert torch.equal(state.history, corrected)
    assert (state.last_step, state.previous_step) == (2, 0)
