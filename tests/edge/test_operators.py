"""The operators' schemas as the C++ side reads them, and their eager form against the oracle."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calib import lattice
from calib.plan import LayerPlan, Mode, PlanRow
from edge import calls
from edge.operators import OPERATORS
from edge.packing import WeightShape, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMON = (
    "Tensor x, Tensor? skip, Tensor step, Tensor(a!) lattice, Tensor(b!) accumulator, Tensor(c!) history, "
    "Tensor(d!) counters, Tensor weight, Tensor residual_weight, Tensor scale, Tensor bias, Tensor table, "
    "float inverse_step, int lattice_bits, bool direct, "
    "int norm, int norm_groups, float norm_eps, Tensor? norm_weight, Tensor? norm_bias, int activation, "
    "Tensor? shift, int out_activation, Tensor? gate, Tensor? add"
)
GEOMETRY = (
    "int upsample, int[] kernel, int[] stride, int[] padding, int[] dilation, int groups, bool transposed, "
    "int[] output_size"
)
SCHEMAS = {
    "conv2d": f"{COMMON}, {GEOMETRY}",
    "linear": COMMON,
    "normalize": "Tensor x, Tensor? skip, Tensor step, Tensor active, int norm, int norm_groups, float norm_eps, "
    "Tensor? norm_weight, Tensor? norm_bias, int activation, int upsample",
    "attention": "Tensor q, Tensor k, Tensor v, Tensor step, Tensor active, int heads, float scale",
    "add": "Tensor a, Tensor b, Tensor step, Tensor active",
    "multiply": "Tensor a, Tensor b, Tensor step, Tensor active",
    "activate": "Tensor x, Tensor step, Tensor active, int activation",
    "reuse": "Tensor x, Tensor step, Tensor(a!) held, Tensor(b!) history, Tensor(c!) counters, Tensor table",
}
STEPS = 6


def test_schemas_are_those_of_the_contract() -> None:
    assert set(OPERATORS) == set(SCHEMAS)
    for name, arguments in SCHEMAS.items():
        packet: Any = getattr(torch.ops.modiff, name)
        assert str(packet.default._schema) == f"modiff::{name}({arguments}) -> Tensor"
        assert str(packet.out._schema) == f"modiff::{name}.out({arguments}, *, Tensor(z!) out) -> Tensor(z!)"


def random_call(kind: str, seed: int) -> tuple[Any, lattice.LayerArithmetic, LayerPlan]:
    """A convolution or linear call without prologue and epilogue, and the oracle's view of it."""
    generator = torch.Generator().manual_seed(seed)
    conv, transposed = lattice.Kind.CONV, lattice.Kind.TRANSPOSED
    operator, weight_shape, x_shape = {
        "conv": (lattice.Operator(conv, padding=(1, 0)), (5, 3, 3, 2), (1, 3, 5, 4)),
        "strided": (lattice.Operator(conv, (2, 1), (1, 2), (1, 2)), (17, 6, 3, 2), (2, 6, 5, 6)),
        "grouped": (lattice.Operator(conv, groups=2, padding=(1, 1)), (6, 2, 3, 3), (1, 4, 3, 4)),
        "transposed": (lattice.Operator(transposed, (2, 2), (1, 0), (1, 2), 2, (1, 0)), (4, 3, 3, 2), (1, 4, 3, 4)),
        "linear": (lattice.Operator(lattice.Kind.LINEAR), (5, 6), (2, 3, 6)),
    }[kind]
    planes = 1 + seed % 2
    weights = [torch.randint(-127, 128, weight_shape, generator=generator, dtype=torch.int8) for _ in range(planes)]
    outputs = operator.per_channel(weights[0]).shape[0]
    mode = Mode.DIRECT if seed % 5 == 0 else Mode.DELTA
    exponents = [torch.randint(6, (4,), generator=generator).tolist() for _ in range(STEPS)]
    anchor = PlanRow((4, 0), (3,))
    rows = tuple(
        PlanRow(tuple(e[: i % 3]), tuple(e[2 : 2 + seed % 3]), extrapolates=i % 3 == 0) for i, e in enumerate(exponents)
    )
    plan = LayerPlan(mode, (anchor,) * STEPS if mode is Mode.DIRECT else rows, anchor)
    layer = lattice.LayerArithmetic(
        tuple(lattice.IntegerOperator(operator, weight) for weight in weights),
        torch.rand(planes, outputs, generator=generator) / 1000,
        torch.randn(outputs, generator=generator),
        torch.tensor(37.5),
        11,
        plan.extrapolates,
    )
    x = torch.randn(x_shape, generator=generator)
    call = _call(layer, plan, x, weight_shape)
    return call, layer, plan


def _call(
    layer: lattice.LayerArithmetic, plan: LayerPlan, x: torch.Tensor, weight_shape: Sequence[int]
) -> calls.Modulated:
    operator = layer.planes[0].operator
    y = operator(x, layer.planes[0].weight.float())
    is_linear = operator.kind is lattice.Kind.LINEAR
    inputs = [x.numel() // x.shape[-1], x.shape[-1]] if is_linear else list(x.permute(0, 2, 3, 1).shape)
    outputs = [y.numel() // y.shape[-1], y.shape[-1]] if is_linear else list(y.permute(0, 2, 3, 1).shape)
    planes, direct = len(layer.planes), plan.mode is Mode.DIRECT
    kernel = (1, 1) if is_linear else (weight_shape[2], weight_shape[3])
    channels = x.shape[-1] if is_linear else x.shape[1]
    transposed = operator.kind is lattice.Kind.TRANSPOSED
    shape = WeightShape(outputs[-1], channels, kernel, operator.groups, transposed)
    packed = [pack(plane.weight.reshape(shape.torch_shape), shape) for plane in layer.planes]
    common: dict[str, Any] = {
        "x": x if is_linear else x.permute(0, 2, 3, 1).contiguous(),
        "skip": None,
        "step": torch.tensor([0]),
        "lattice": torch.zeros([1] if direct else [planes, *inputs], dtype=torch.int16),
        "accumulator": torch.zeros([1] if direct else [planes, *outputs], dtype=torch.int32),
        "history": torch.zeros(outputs if layer.keeps_history and not direct else [1]),
        "counters": torch.zeros(4, dtype=torch.int32),
        "weight": packed[0],
        "residual_weight": packed[-1] if planes == 2 else torch.zeros(1, dtype=torch.int8),
        "scale": layer.scales,
        "bias": layer.bias,
        "table": torch.from_numpy(plan.table()),
        "inverse_step": float(layer.inverse_step),
        "lattice_bits": layer.lattice_bits,
        "direct": direct,
        "norm": 0,
        "norm_groups": 1,
        "norm_eps": 1e-5,
        "norm_weight": None,
        "norm_bias": None,
        "activation": 0,
        "shift": None,
        "out_activation": 0,
        "gate": None,
        "add": None,
    }
    if is_linear:
        return calls.Linear(**common)
    return calls.Conv2d(
        **common,
        upsample=1,
        kernel=list(kernel),
        stride=list(operator.stride),
        padding=list(operator.padding),
        dilation=list(operator.dilation),
        groups=operator.groups,
        transposed=transposed,
        output_size=outputs[1:3],
    )


def run(call: calls.Modulated, **changes: Any) -> torch.Tensor:  # noqa: ANN401 - fields of the call
    """The operator through PyTorch's dispatcher."""
    name = {calls.Conv2d: "conv2d", calls.Linear: "linear"}[type(call)]
    changed = dataclasses.replace(call, **changes)
    arguments = [getattr(changed, field.name) for field in dataclasses.fields(changed)]
    y: torch.Tensor = getattr(torch.ops.modiff, name)(*arguments)
    return y


KINDS = ["conv", "strided", "grouped", "transposed", "linear"]


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(KINDS), st.integers(0, 2), st.integers(0, 2**20))
def test_eager_form_is_the_oracle_channels_last(kind: str, first: int, seed: int) -> None:
    call, layer, plan = random_call(kind, seed)

    def turn(t: torch.Tensor) -> torch.Tensor:
        return t if kind == "linear" else t.permute(0, 3, 1, 2)

    def back(t: torch.Tensor) -> torch.Tensor:
        return t if kind == "linear" else t.permute(0, 2, 3, 1)

    x, state = call.x, None
    generator = torch.Generator().manual_seed(seed)
    for step in range(first, STEPS):
        x = 0.9 * x + 0.2 * torch.randn(x.shape, generator=generator)
        fresh = state is None
        if state is None or plan.mode is Mode.DIRECT:
            state = lattice.fresh_state(layer, turn(x))
        row = plan.anchor if fresh and plan.mode is Mode.DELTA else plan.rows[step]
        expected = lattice.run_step(layer, state, turn(x), row=row, step=step)
        assert torch.equal(run(call, x=x, step=torch.tensor([step])), back(expected))
    assert state is not None
    if plan.mode is Mode.DIRECT:
        assert not any(getattr(call, name).any() for name in ("lattice", "accumulator", "history", "counters"))
        return
    for plane in range(len(layer.planes)):
        assert torch.equal(call.lattice[plane], back(state.lattice[plane]).reshape(call.lattice[plane].shape))
        wanted = back(state.accumulator[plane])
        assert torch.equal(call.accumulator[plane], wanted.reshape(call.accumulator[plane].shape))
    assert call.counters.tolist() == [state.refreshes, state.last_step, state.previous_step, 0]


@pytest.mark.parametrize("kind", ["conv", "linear"])
@pytest.mark.parametrize("seed", [1, 5])
def test_fakes_aliases_and_out_variants_agree_with_the_eager_form(kind: str, seed: int) -> None:
    call, _, _ = random_call(kind, seed)
    arguments = [getattr(call, field.name) for field in dataclasses.fields(call)]
    packet: Any = getattr(torch.ops.modiff, "linear" if kind == "linear" else "conv2d")
    torch.library.opcheck(packet.default, tuple(arguments), test_utils=("test_schema", "test_faketensor"))
    call, _, _ = random_call(kind, seed)
    y = run(call)
    call, _, _ = random_call(kind, seed)
    arguments = [getattr(call, field.name) for field in dataclasses.fields(call)]
    out = torch.empty_like(y)
    assert packet.out(*arguments, out=out) is out
    assert torch.equal(out, y)


def test_prologue_and_epilogue_are_what_torch_computes_around_the_layer() -> None:
    call, layer, plan = random_call("conv", 1)
    generator = torch.Generator().manual_seed(3)
    half = torch.randn(2, 3, 2, 2, generator=generator)
    shift, gate = torch.randn(1, 5, generator=generator), torch.randn(2, 5, generator=generator)
    planes = len(layer.planes)
    y_shape = (2, 6, 3, 5)
    call = dataclasses.replace(
        call,
        x=half[:, :2].permute(0, 2, 3, 1).contiguous(),
        skip=half[:, 2:].permute(0, 2, 3, 1).contiguous(),
        norm=calls.Norm.GROUP,
        norm_groups=3,
        activation=calls.Activation.SILU,
        shift=shift,
        out_activation=calls.Activation.RELU,
        gate=gate,
        add=torch.ones(y_shape[0], 4, 3, 5),
        upsample=2,
        lattice=torch.zeros(planes, 2, 2, 2, 3, dtype=torch.int16),
        accumulator=torch.zeros(planes, 2, 4, 3, 5, dtype=torch.int32),
        history=torch.zeros(2, 4, 3, 5),
        output_size=[4, 3],
    )
    u = torch.nn.functional.silu(torch.nn.functional.group_norm(half.double(), 3)).float()
    u = torch.nn.functional.interpolate(u, scale_factor=2, mode="nearest")
    state = lattice.fresh_state(layer, u)
    y = lattice.run_step(layer, state, u, row=plan.anchor, step=0).permute(0, 2, 3, 1)
    y = torch.relu(y + shift.reshape(1, 1, 1, 5)) * gate.reshape(2, 1, 1, 5) + 1
    assert torch.equal(run(call), y)
    assert torch.equal(call.lattice[0].repeat_interleave(2, 1).repeat_interleave(2, 2).permute(0, 3, 1, 2),
                       state.lattice[0])  # fmt: skip


def test_a_skipped_step_leaves_everything_as_it_was() -> None:
    call, _, _ = random_call("conv", 1)
    table = call.table.clone()
    table[2] = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1])
    run(call)
    before = [call.lattice.clone(), call.accumulator.clone(), call.counters.clone()]
    assert run(call, table=table, step=torch.tensor([2]), x=torch.full_like(call.x, torch.nan)).isnan().all()
    assert all(map(torch.equal, before, [call.lattice, call.accumulator, call.counters]))


def test_reuse_refreshes_holds_and_extrapolates() -> None:
    held, history, counters = torch.zeros(3), torch.zeros(3), torch.zeros(4, dtype=torch.int32)
    table = torch.tensor([1, 2, 0, 2, 1], dtype=torch.int8)

    def step(i: int, value: float) -> list[float]:
        x = torch.full((3,), value)
        y: torch.Tensor = torch.ops.modiff.reuse(x, torch.tensor([i]), held, history, counters, table)
        return y.tolist()

    nan = float("nan")
    assert step(0, 1.0) == [1.0] * 3  # fresh: a refresh, whatever the row
    assert step(1, nan) == [1.0] * 3  # one refresh only: holds
    assert step(2, 5.0) == [5.0] * 3
    assert step(3, nan) == [7.0] * 3  # 5 + (3-2)/(2-0) * (5-1)
    assert step(4, nan) == [5.0] * 3
    assert counters.tolist() == [2, 2, 0, 0]


def test_float_operators_are_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 5, 8, generator=generator), torch.randn(2, 7, 8, generator=generator)
    step, active = torch.tensor([1]), torch.tensor([0, 1], dtype=torch.int8)
    query, key = (t.double().reshape(2, -1, 2, 4).transpose(1, 2) for t in (q, k))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, key).transpose(1, 2).flatten(2).float()
    assert torch.allclose(torch.ops.modiff.attention(q, k, k, step, active, 2, 0.5), expected, rtol=1e-6)
    assert torch.ops.modiff.attention(q, k, k, torch.tensor([0]), active, 2, 0.5).isnan().all()
    row = torch.randn(1, 8, generator=generator)
    assert torch.equal(torch.ops.modiff.add(q, row, step, active), q + row)
    assert torch.equal(torch.ops.modiff.multiply(q, q, step, active), q * q)
    assert torch.equal(torch.ops.modiff.activate(q, step, active, 4), q.relu())
    weight = torch.randn(2, 8, generator=generator)
    y = torch.ops.modiff.normalize(q, None, step, active, calls.Norm.LAYER, 1, 1e-5, weight, None, 0, 1)
    wanted = torch.nn.functional.layer_norm(q.double(), (8,)) * weight.reshape(2, 1, 8)
    assert torch.allclose(y, wanted.float(), rtol=1e-6)
