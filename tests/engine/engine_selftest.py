"""Cases for ``modiff-selftest`` and what the reference says about them."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pytest
import torch

from calib.lattice import IntegerOperator, Kind, LayerArithmetic, Operator, StepCounts, fresh_state, run_step
from calib.plan import LayerPlan, Mode, PlanRow
from edge.calls import Activation, Norm
from edge.packing import WeightShape, pack

needs_emulator = pytest.mark.skipif(
    shutil.which("qemu-aarch64") is None or shutil.which("aarch64-linux-gnu-g++") is None,
    reason="qemu-user and g++-aarch64-linux-gnu are not installed",
)


def _native_sets() -> list[str]:
    """Kernel sets of this machine's CPU, by the flags that Linux names; aarch64's are told under emulation."""
    flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    needs = {"avx2": {"avx2", "fma"}, "avx512vnni": {"avx2", "fma", "avx512f", "avx512bw", "avx512_vnni"}}
    return ["portable", *(isa for isa, needed in needs.items() if needed <= flags), "auto"]


NATIVE_SETS = _native_sets()

LAYER, NOISE, CHECKSUM, ANOMALIES, ACTIVATIONS, NORMALIZE, ATTENTION, REUSE, PERMUTE = range(1, 10)


@dataclass(frozen=True)
class Around:
    """Prologue and epilogue of a layer; vectors are float32 [N or 1, channels]."""

    upsample: int = 1
    skip_channels: int = 0
    norm: Norm = Norm.NONE
    norm_groups: int = 1
    norm_eps: float = 1e-5
    norm_weight: torch.Tensor | None = None
    norm_bias: torch.Tensor | None = None
    activation: Activation = Activation.NONE
    shift: torch.Tensor | None = None
    out_activation: Activation = Activation.NONE
    gate: torch.Tensor | None = None
    adds: tuple[torch.Tensor, ...] | None = None  # channels last, one a run


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
    inputs: tuple[tuple[int, torch.Tensor], ...]  # (step, x before upsampling)
    around: Around = Around()

    @functools.cached_property
    def geometry(self) -> list[int]:
        """Batch, C, H, W, OC, OH, OW, KH, KW; H and W after upsampling."""
        x = upsampled(self.inputs[0][1], self.around.upsample)
        if self.operator.kind is Kind.LINEAR:
            positions = x.numel() // x.shape[-1]
            images = x.shape[0] if x.dim() == 3 else 1
            width = positions // images
            return [images, x.shape[-1], 1, width, self.weights[0].shape[0], 1, width, 1, 1]
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


def long_case(kind: Kind, steps: int) -> LayerCase:
    """A layer over many steps, one pass each, anchored by two."""
    rng = np.random.default_rng(11)
    linear = kind is Kind.LINEAR
    weight_shape, shape = ((16, 24), (1, 3, 24)) if linear else ((18, 5, 3, 3), (1, 5, 7, 6))
    operator = Operator(kind) if linear else Operator(kind, (2, 1), (1, 1))
    weight = torch.from_numpy(rng.integers(-127, 128, weight_shape, dtype=np.int8))
    rows = tuple(PlanRow((step % 4,)) for step in range(steps))
    plan = LayerPlan(Mode.DELTA, rows, PlanRow((5, 0)))
    x = np.cumsum(rng.normal(scale=0.05, size=(steps, *shape)), axis=0).astype(np.float32)
    inputs = tuple((step, torch.from_numpy(x[step])) for step in range(steps))
    one = torch.ones(1, weight_shape[0])
    return LayerCase(operator, (weight,), one, one[0], torch.tensor(500.0), 13, plan, inputs)


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

    anchor = PlanRow(exponents(1), exponents(0))
    if rng.random() < 0.2:
        return LayerPlan(Mode.DIRECT, (anchor,) * steps, anchor)
    rows = []
    for _ in range(steps):
        main = exponents(0)
        rows.append(PlanRow(main, exponents(0), extrapolates=not main and rng.random() < 0.7))
    return LayerPlan(Mode.DELTA, tuple(rows), anchor)


def _spoil(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """Sometimes puts what a layer must survive into its input: NaN, infinities, values far outside the lattice."""
    if rng.random() < 0.3:
        flat = x.reshape(-1)
        for value in (np.nan, np.inf, -np.inf, 1e30, -3e4):
            flat[rng.integers(flat.size)] = value
    return x


def upsampled(x: torch.Tensor, times: int) -> torch.Tensor:
    """[N, C, H, W] with every pixel ``times`` times in each direction."""
    return x if times == 1 else x.repeat_interleave(times, 2).repeat_interleave(times, 3)


def reference(case: LayerCase, features: FloatProgram | None = None) -> Outcome:
    """What ``calib.lattice`` says, between the float parts that ``features`` computes."""
    layer, around = case.arithmetic, case.around
    state = None
    outputs, statistics = [], []
    direct = case.plan.mode is Mode.DIRECT
    for index, (step, x) in enumerate(case.inputs):
        counts = StepCounts()
        u = upsampled(x if features is None else features.prologue(case, x), around.upsample)
        if state is None or direct:
            state = fresh_state(layer, u)
        row = case.plan.anchor if state.refreshes == 0 and not direct else case.plan.rows[step]
        y = _channels_last(case.operator, run_step(layer, state, u, row=row, step=step, counts=counts))
        outputs.append(y if features is None else features.epilogue(case, y, index))
        statistics.append((counts.passes, counts.residual_passes, counts.saturated))
    assert state is not None
    if direct:
        empty = np.zeros(0)
        return Outcome(outputs, statistics, empty, empty, [0, 0, 0])
    every = slice(None, None, around.upsample)
    lattice = [plane[..., every, every] if around.upsample > 1 else plane for plane in state.lattice]
    return Outcome(
        outputs,
        statistics,
        np.stack([_channels_last(case.operator, plane) for plane in lattice]),
        np.stack([_channels_last(case.operator, plane) for plane in state.accumulator]),
        [state.refreshes, state.last_step, state.previous_step],
    )


def _channels_last(operator: Operator, values: torch.Tensor) -> np.ndarray:
    return (values if operator.kind is Kind.LINEAR else values.permute(0, 2, 3, 1)).contiguous().numpy()


def encode(case: LayerCase, threads: int = 1) -> bytes:
    """The case as the self-test program reads it."""
    geometry, operator, around = case.geometry, case.operator, case.around
    vectors = (around.norm_weight, around.norm_bias, around.shift, around.gate)
    weight_rows, bias_rows, shift_rows, gate_rows = (0 if v is None else v.shape[0] for v in vectors)
    header = [
        *geometry, *operator.stride, *operator.padding, *operator.dilation, operator.groups,
        int(operator.kind is Kind.TRANSPOSED), len(case.weights), case.lattice_bits,
        int(case.plan.mode is Mode.DIRECT), int(case.plan.extrapolates and case.plan.mode is Mode.DELTA),
        len(case.plan.rows), len(case.inputs), threads,
        around.upsample, around.skip_channels, int(around.norm), around.norm_groups, weight_rows, bias_rows,
        int(around.activation), shift_rows, int(around.out_activation), gate_rows, int(around.adds is not None),
    ]  # fmt: skip
    kernel = (geometry[7], geometry[8])
    shape = WeightShape(geometry[4], geometry[1], kernel, operator.groups, operator.kind is Kind.TRANSPOSED)
    parts = [np.uint32(LAYER).tobytes(), np.array(header, np.int64).tobytes()]
    parts.append(np.array([case.inverse_step.item(), around.norm_eps]).tobytes())
    parts += [pack(weight.reshape(shape.torch_shape), shape).numpy().tobytes() for weight in case.weights]
    parts += [case.scale.numpy().tobytes(), case.bias.numpy().tobytes(), case.plan.table().tobytes()]
    parts += [vector.numpy().tobytes() for vector in vectors if vector is not None]
    for index, (step, x) in enumerate(case.inputs):
        values = x if operator.kind is Kind.LINEAR else x.permute(0, 2, 3, 1)
        split = values.shape[-1] - around.skip_channels
        parts.append(np.int64(step).tobytes())
        parts += [part.contiguous().numpy().tobytes() for part in (values[..., :split], values[..., split:])]
        parts.append(b"" if around.adds is None else around.adds[index].numpy().tobytes())
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
    batch, channels, height, width, out_channels, out_height, out_width = case.geometry[:7]
    inputs = batch * channels * height * width // case.around.upsample**2
    outputs = batch * out_channels * out_height * out_width
    outcome = Outcome([], [], np.zeros(0), np.zeros(0), [])
    for _ in case.inputs:
        assert answer.take("<u4", 1)[0] == 0
        passes, residual, macs, saturated = (int(value) for value in answer.take("<u8", 4))
        assert (macs > 0) == (passes + residual > 0)
        outcome.statistics.append((passes, residual, saturated))
        outcome.outputs.append(answer.take("<f4", outputs))
    planes = len(case.weights)
    if case.plan.mode is Mode.DELTA:
        outcome.lattice = answer.take("<i2", planes * inputs)
        outcome.accumulator = answer.take("<i4", planes * outputs)
        if case.plan.extrapolates:
            answer.take("<f4", outputs)
    outcome.counters = [int(value) for value in answer.take("<i4", 4)[:3]]
    return outcome


class FloatProgram:
    """The float parts around a layer, computed by a self-test program that answers case by case.

    Args:
        command: of the program, with the instruction set that is taken as the reference.
    """

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def prologue(self, case: LayerCase, x: torch.Tensor) -> torch.Tensor:
        """``activation(norm(x))`` in the layout of ``x``, before upsampling."""
        around, conv = case.around, case.operator.kind is not Kind.LINEAR
        values = x.permute(0, 2, 3, 1).contiguous() if conv else x
        y = torch.from_numpy(self.normalize(values.numpy(), around).copy()).reshape(values.shape)
        return y.permute(0, 3, 1, 2).contiguous() if conv else y

    def epilogue(self, case: LayerCase, y: np.ndarray, index: int) -> np.ndarray:
        """What the layer makes of its accumulators' ``y`` in run ``index``, channels last."""
        around, rows = case.around, y.reshape(case.geometry[0], -1, y.shape[-1])
        if around.shift is not None:
            rows = rows + around.shift.numpy()[:, None]
        if around.out_activation is not Activation.NONE:
            rows = self.normalize(rows, Around(activation=around.out_activation)).reshape(rows.shape)
        if around.gate is not None:
            rows = rows * around.gate.numpy()[:, None]
        return rows if around.adds is None else rows + around.adds[index].numpy().reshape(rows.shape)

    def normalize(self, values: np.ndarray, around: Around) -> np.ndarray:
        """The prologue of [N, ..., C]."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(normalize_request(values, around))
        self._process.stdin.flush()
        return np.frombuffer(self._process.stdout.read(values.nbytes), np.float32)


def normalize_request(values: np.ndarray, around: Around) -> bytes:
    """A normalize case for [N, ..., C] that holds x and skip, without upsampling."""
    images, channels = values.shape[0] if values.ndim > 2 else 1, values.shape[-1]
    positions = values.size // channels // images
    vectors = [vector for vector in (around.norm_weight, around.norm_bias) if vector is not None]
    rows = [0 if vector is None else vector.shape[0] for vector in (around.norm_weight, around.norm_bias)]
    split = channels - around.skip_channels
    header = [images, 1, positions, split, around.skip_channels, 1, around.norm, around.norm_groups, *rows]
    parts = [np.uint32(NORMALIZE).tobytes(), np.array([*header, around.activation], np.int64).tobytes()]
    parts += [np.float64(around.norm_eps).tobytes(), *(vector.numpy().tobytes() for vector in vectors)]
    parts += [np.ascontiguousarray(part).tobytes() for part in (values[..., :split], values[..., split:])]
    return b"".join(parts)


def surrounded(case: LayerCase, seed: int) -> LayerCase:
    """The case with a random prologue and epilogue."""
    rng = np.random.default_rng(seed)
    linear = case.operator.kind is Kind.LINEAR
    channels = case.geometry[1]
    images = case.geometry[0]

    def vector(size: int) -> torch.Tensor | None:
        rows = int(rng.choice([0, 1, images]))
        return torch.from_numpy(rng.normal(size=(rows, size)).astype(np.float32)) if rows else None

    upsample = 1 if linear else int(rng.integers(1, 3))
    groups = int(rng.choice([d for d in range(1, channels + 1) if channels % d == 0]))
    around = Around(
        upsample,
        int(rng.integers(0, channels)),
        Norm(int(rng.integers(0, 4))),
        groups,
        1e-5,
        vector(channels),
        vector(channels),
        Activation(int(rng.integers(0, 5))),
    )
    case = dataclasses.replace(case, around=around)
    batch, _, _, _, out_channels, height, width = case.geometry[:7]
    adds = tuple(
        torch.from_numpy(rng.normal(size=(batch, height, width, out_channels)).astype(np.float32)) for _ in case.inputs
    )
    return dataclasses.replace(
        case,
        around=dataclasses.replace(
            around,
            shift=vector(out_channels),
            out_activation=Activation(int(rng.integers(0, 5))),
            gate=vector(out_channels),
            adds=adds if rng.random() < 0.5 else None,
        ),
    )


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
        np.testing.assert_array_equal(mine.reshape(-1), theirs)


def without_history(case: LayerCase) -> LayerCase:
    """The same case with a plan that never extrapolates."""
    rows = tuple(dataclasses.replace(row, extrapolates=False) for row in case.plan.rows)
    return dataclasses.replace(case, plan=dataclasses.replace(case.plan, rows=rows))


def emulated(program: Path, cpu: str) -> list[str]:
    """The command that runs an aarch64 program here."""
    return ["qemu-aarch64", "-cpu", cpu, "-L", "/usr/aarch64-linux-gnu", str(program)]
