"""Cases for ``modiff-selftest`` and what the reference says about them."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from calib.lattice import IntegerOperator, Kind, LayerArithmetic, Operator, StepCounts, fresh_state, run_step
from calib.plan import LayerPlan, Mode, PlanRow
from edge.packing import WeightShape, pack

if TYPE_CHECKING:
    from pathlib import Path

needs_emulator = pytest.mark.skipif(
    shutil.which("qemu-aarch64") is None or shutil.which("aarch64-linux-gnu-g++") is None,
    reason="qemu-user and g++-aarch64-linux-gnu are not installed",
)

LAYER, NOISE, CHECKSUM, ANOMALIES, ACTIVATIONS = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class LayerCase:
    """One layer, its plan, and the inputs of a few steps."""

    operator: Operator
    weights: tuple[torch.Tensor, ...]  # int8, torch layout
    scale: torch.Tensor
    bias: torch.Tensor
    inverse_step: torch.Tensor
    lattice_bits: int
    plan: LayerPlan
    inputs: tuple[tuple[int, torch.Tensor], ...]  # (step, x)

    @functools.cached_property
    def geometry(self) -> list[int]:
        """Batch, C, H, W, OC, OH, OW, KH, KW."""
        x = self.inputs[0][1]
        if self.operator.kind is Kind.LINEAR:
            positions = x.numel() // x.shape[-1]
            return [1, x.shape[-1], 1, positions, self.weights[0].shape[0], 1, positions, 1, 1]
        out = self.operator(torch.zeros(x.shape), self.weights[0].to(torch.float32))
        return [*x.shape, *out.shape[1:], *self.weights[0].shape[2:]]

    @property
    def arithmetic(self) -> LayerArithmetic:
        planes = tuple(IntegerOperator(self.operator, weight) for weight in self.weights)
        return LayerArithmetic(
            planes, self.scale, self.bias, self.inverse_step, self.lattice_bits, self.plan.extrapolates
        )


@dataclass
class Outcome:
    """What one case leaves behind; the reference and the kernels must give equal ones."""

    outputs: list[np.ndarray]
    statistics: list[tuple[int, int, int]]  # passes, residual passes, saturated
    lattice: np.ndarray
    accumulator: np.ndarray
    counters: list[int]


def random_case(seed: int, *, largest: int = 9) -> LayerCase:
    """A random operator with random weights, a random plan and inputs that drift, some of them bad."""
    rng = np.random.default_rng(seed)
    operator, weight_shape, input_shape = _random_operator(rng, largest)
    out_channels = operator.per_channel(torch.zeros(weight_shape)).shape[0]
    planes = int(rng.integers(1, 3))
    weights = tuple(torch.from_numpy(rng.integers(-127, 128, weight_shape, dtype=np.int8)) for _ in range(planes))
    lattice_bits = int(rng.integers(6, 14))
    steps = 6
    plan = _random_plan(rng, steps)
    scale = torch.from_numpy(rng.uniform(1e-4, 1e-2, (planes, out_channels)).astype(np.float32))
    bias = torch.from_numpy(rng.normal(size=out_channels).astype(np.float32))
    step_size = 8.0 / 2**lattice_bits * float(rng.uniform(0.5, 2.0))
    inverse = torch.tensor(1.0) / torch.tensor(step_size, dtype=torch.float32)
    first = int(rng.integers(0, 3))
    x = rng.normal(size=input_shape).astype(np.float32)
    inputs = []
    for step in range(first, steps):
        inputs.append((step, torch.from_numpy(_spoil(rng, x.copy()))))
        if rng.random() < 0.8:
            x += rng.normal(scale=0.1, size=input_shape).astype(np.float32)
        if rng.random() < 0.3:
            x[..., : input_shape[-1] // 2] = 0
    return LayerCase(operator, weights, scale, bias, inverse, lattice_bits, plan, tuple(inputs))


def long_case(steps: int) -> LayerCase:
    """A linear layer over many steps, one pass each, anchored by two."""
    rng = np.random.default_rng(11)
    weight = torch.from_numpy(rng.integers(-127, 128, (16, 24), dtype=np.int8))
    rows = tuple(PlanRow((step % 4,)) for step in range(steps))
    plan = LayerPlan(Mode.DELTA, rows, PlanRow((5, 0)))
    x = np.cumsum(rng.normal(scale=0.05, size=(steps, 3, 24)), axis=0).astype(np.float32)
    inputs = tuple((step, torch.from_numpy(x[step])) for step in range(steps))
    one = torch.ones(1, 16)
    return LayerCase(Operator(Kind.LINEAR), (weight,), one, one[0], torch.tensor(500.0), 13, plan, inputs)


def _random_operator(rng: np.random.Generator, largest: int) -> tuple[Operator, tuple[int, ...], tuple[int, ...]]:
    kind = Kind(rng.choice([kind.value for kind in Kind]))
    groups = int(rng.choice([1, 1, 1, 2, 3]))
    group_inputs, group_outputs = int(rng.choice([1, 3, 4, 5, 16, 21, 33])), int(rng.choice([1, 2, 7, 16, 19, 32]))
    if kind is Kind.LINEAR:
        shape = (int(rng.integers(1, 3)), int(rng.integers(1, largest)), group_inputs)
        return Operator(kind), (group_outputs, group_inputs), shape
    pair = lambda low, high: (int(rng.integers(low, high)), int(rng.integers(low, high)))  # noqa: E731
    kernel, stride, dilation, padding = pair(1, 4), pair(1, 4), pair(1, 3), pair(0, 4)
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if kind is Kind.TRANSPOSED:
        extra = tuple(int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation, strict=True))
        size = [int(rng.integers(2, largest)) + 2 * p for p in padding]
        operator = Operator(kind, stride, padding, dilation, groups, extra)
        weight = (groups * group_inputs, group_outputs, *kernel)
    else:
        size = [max(s - 2 * p, 1) + int(rng.integers(0, largest)) for s, p in zip(span, padding, strict=True)]
        operator = Operator(kind, stride, padding, dilation, groups)
        weight = (groups * group_outputs, group_inputs, *kernel)
    return operator, weight, (int(rng.integers(1, 3)), groups * group_inputs, *size)


def _random_plan(rng: np.random.Generator, steps: int) -> LayerPlan:
    def exponents(least: int) -> tuple[int, ...]:
        return tuple(int(k) for k in rng.integers(0, 8, int(rng.integers(least, 3))))

    mode = Mode.DIRECT if rng.random() < 0.2 else Mode.DELTA
    least = 1 if mode is Mode.DIRECT else 0
    rows = []
    for _ in range(steps):
        main = exponents(least)
        rows.append(PlanRow(main, exponents(0), extrapolates=not main and rng.random() < 0.7))
    return LayerPlan(mode, tuple(rows), PlanRow(exponents(1), exponents(0)))


def _spoil(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Sometimes puts what a layer must survive into its input: NaN, infinities, values far outside the lattice."""
    if rng.random() < 0.3:
        flat = x.reshape(-1)
        for value in (np.nan, np.inf, -np.inf, 1e30, -3e4):
            flat[rng.integers(flat.size)] = value
    return x


def reference(case: LayerCase) -> Outcome:
    """What ``calib.lattice`` says."""
    layer = case.arithmetic
    state = fresh_state(layer, case.inputs[0][1])
    outputs, statistics = [], []
    direct = case.plan.mode is Mode.DIRECT
    for step, x in case.inputs:
        counts = StepCounts()
        if direct:
            state = fresh_state(layer, x)
            row = case.plan.rows[step]
        else:
            row = case.plan.anchor if state.refreshes == 0 else case.plan.rows[step]
        outputs.append(run_step(layer, state, x, row=row, step=step, counts=counts).numpy())
        statistics.append((counts.passes, counts.residual_passes, counts.saturated))
    if direct:
        empty = np.zeros(0)
        return Outcome(outputs, statistics, empty, empty, [0, 0, 0])
    return Outcome(
        outputs,
        statistics,
        np.stack([_channels_last(case.operator, plane) for plane in state.lattice]),
        np.stack([_channels_last(case.operator, plane) for plane in state.accumulator]),
        [state.refreshes, state.last_step, state.previous_step],
    )


def _channels_last(operator: Operator, values: torch.Tensor) -> np.ndarray:
    return (values if operator.kind is Kind.LINEAR else values.permute(0, 2, 3, 1)).contiguous().numpy()


def encode(case: LayerCase) -> bytes:
    """The case as the self-test program reads it."""
    geometry = case.geometry
    operator = case.operator
    conv = operator.kind is not Kind.LINEAR
    header = [
        int(conv), *geometry, *operator.stride, *operator.padding, *operator.dilation, operator.groups,
        int(operator.kind is Kind.TRANSPOSED), len(case.weights), case.lattice_bits,
        int(case.plan.mode is Mode.DIRECT), int(case.plan.extrapolates and case.plan.mode is Mode.DELTA),
        len(case.plan.rows), len(case.inputs),
    ]  # fmt: skip
    kernel = (geometry[7], geometry[8])
    shape = WeightShape(geometry[4], geometry[1], kernel, operator.groups, operator.kind is Kind.TRANSPOSED)
    parts = [np.uint32(LAYER).tobytes(), np.array(header, np.int64).tobytes()]
    parts.append(np.float64(case.inverse_step.item()).tobytes())
    parts += [pack(weight.reshape(shape.torch_shape), shape).numpy().tobytes() for weight in case.weights]
    parts += [case.scale.numpy().tobytes(), case.bias.numpy().tobytes(), case.plan.table().tobytes()]
    for step, x in case.inputs:
        parts += [np.int64(step).tobytes(), x.numpy().tobytes()]
    return b"".join(parts)


class Answer:
    """Reads what the program wrote, in order."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def take(self, dtype: str, count: int) -> np.ndarray:
        values = np.frombuffer(self._data, dtype, count, self._place)
        self._place += values.nbytes
        return values

    def finished(self) -> bool:
        return self._place == len(self._data)


def decode(case: LayerCase, answer: Answer) -> Outcome:
    """The kernels' outcome of a case."""
    geometry = case.geometry
    batch, channels, height, width, out_channels, out_height, out_width = geometry[:7]
    inputs, outputs = batch * channels * height * width, batch * out_channels * out_height * out_width
    shape = _output_shape(case, geometry)
    outcome = Outcome([], [], np.zeros(0), np.zeros(0), [])
    for _ in case.inputs:
        assert answer.take("<u4", 1)[0] == 0
        passes, residual, macs, saturated = (int(value) for value in answer.take("<u8", 4))
        assert (macs > 0) == (passes + residual > 0)
        outcome.statistics.append((passes, residual, saturated))
        outcome.outputs.append(answer.take("<f4", outputs).reshape(shape))
    planes = len(case.weights)
    if case.plan.mode is Mode.DELTA:
        outcome.lattice = answer.take("<i2", planes * inputs)
        outcome.accumulator = answer.take("<i4", planes * outputs)
        if case.plan.extrapolates:
            answer.take("<f4", outputs)
    outcome.counters = [int(value) for value in answer.take("<i4", 4)[:3]]
    return outcome


def _output_shape(case: LayerCase, geometry: list[int]) -> tuple[int, ...]:
    batch, _, _, _, out_channels, out_height, out_width = geometry[:7]
    if case.operator.kind is Kind.LINEAR:
        return (*case.inputs[0][1].shape[:-1], out_channels)
    return (batch, out_channels, out_height, out_width)


def run_program(command: list[str], stdin: bytes) -> Answer:
    """Runs the self-test program once over many cases."""
    done = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr.decode()
    return Answer(done.stdout)


def assert_equal(expected: Outcome, actual: Outcome) -> None:
    """Bit for bit, NaN equal to NaN."""
    assert expected.statistics == actual.statistics
    assert expected.counters == actual.counters
    np.testing.assert_array_equal(expected.lattice.reshape(-1), actual.lattice)
    np.testing.assert_array_equal(expected.accumulator.reshape(-1), actual.accumulator)
    for mine, theirs in zip(expected.outputs, actual.outputs, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def without_history(case: LayerCase) -> LayerCase:
    """The same case with a plan that never extrapolates."""
    rows = tuple(dataclasses.replace(row, extrapolates=False) for row in case.plan.rows)
    return dataclasses.replace(case, plan=dataclasses.replace(case.plan, rows=rows))


def emulated(program: Path, cpu: str) -> list[str]:
    """The command that runs an aarch64 program here."""
    return ["qemu-aarch64", "-cpu", cpu, "-L", "/usr/aarch64-linux-gnu", str(program)]
