"""The arithmetic of anchored modulated INT8: the oracle that every kernel equals bit for bit.

A linear operator keeps an integer lattice ``A`` that follows its input ``x`` (``x ~ s * A``) and an integer
accumulator ``O = W_q (*) A``. One *pass* with exponent ``k`` moves both by a quantized change::

    D = x / s - A;   q = clamp(rne(D * 2^-k));   A += q << k;   O += (W_q (*) q) << k;   y = s * w_c * O + b

The clamp is at +-254. A code beyond +-127 is the sum of two INT8 ones, and what the second ones hold, the *spill*,
takes a product of its own. Exponents are chosen so that no change that calibration saw spills: few codes of rare
inputs do, in few rows, and those are not left behind until the next step.

Source: MoDiff (Gao et al., ICML 2025, arXiv 2506.22463, equations 8-18) carried over to integers. It holds that

* I1: after a pass, ``|x - s*A| <= s * 2^(k-1)`` wherever the pass did not saturate;
* I2: ``O == W_q (*) A`` exactly, for any plan and any number of steps (padding is a zero change);
* I3: ``2^(L-1) * max_c sum|W_q[c]| < 2^31``, so an accumulator cannot overflow (see ``calib.weights``).

Floats are float32 and every operation written here rounds once, to nearest even, without fused multiply-add.
Tensors are laid out as PyTorch does (NCHW, or ``[..., C]`` for linear); the batch entries do not touch each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it

if TYPE_CHECKING:
    from calib.plan import PlanRow

CODE_LIMIT = 127
"""Largest magnitude of a quantized change or weight; -128 is never used."""

PASS_LIMIT = 2 * CODE_LIMIT
"""Largest magnitude of a code of a pass: a code and its spill."""

RESIDUAL_LEVELS = 254
"""Steps of a residual weight per step of a main weight: the rounding error spans half a step each way."""

_EXACT_FLOAT32 = 2**24
_EXACT_FLOAT64 = 2**53


class Kind(Enum):
    """Which linear operator a layer is; one-dimensional convolutions are two-dimensional with height 1."""

    LINEAR = "linear"
    CONV = "conv"
    TRANSPOSED = "transposed"


@dataclass(frozen=True)
class Operator:
    """A linear operator without its weights.

    Weight shapes are PyTorch's: linear ``[OC, C]``, conv ``[OC, C/groups, KH, KW]``, transposed
    ``[C, OC/groups, KH, KW]``.
    """

    kind: Kind
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    output_padding: tuple[int, int] = (0, 0)

    def __call__(self, values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Apply the operator in the tensors' own floating-point type.

        Args:
            values: ``[N, C, H, W]``, or ``[..., C]`` for linear.
            weight: same dtype as ``values``.
        """
        match self.kind:
            case Kind.LINEAR:
                return F.linear(values, weight)
            case Kind.CONV:
                return F.conv2d(values, weight, None, self.stride, self.padding, self.dilation, self.groups)
            case Kind.TRANSPOSED:
                return F.conv_transpose2d(
                    values, weight, None, self.stride, self.padding, self.output_padding, self.groups, self.dilation
                )

    def per_channel(self, weight: torch.Tensor) -> torch.Tensor:
        """View the weights as ``[OC, K]``: one row of everything that one output channel sums."""
        if self.kind is not Kind.TRANSPOSED:
            return weight.reshape(weight.shape[0], -1)
        channels, per_group, *kernel = weight.shape
        grouped = weight.reshape(self.groups, channels // self.groups, per_group, *kernel)
        return grouped.transpose(1, 2).reshape(self.groups * per_group, -1)

    def from_per_channel(self, rows: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Undo ``per_channel``: ``[OC, K]`` back to a weight of ``shape``."""
        if self.kind is not Kind.TRANSPOSED:
            return rows.reshape(shape)
        channels, per_group, *kernel = shape
        grouped = rows.reshape(self.groups, per_group, channels // self.groups, *kernel)
        return grouped.transpose(1, 2).reshape(shape)

    def channel_shape(self, vector: torch.Tensor) -> torch.Tensor:
        """Shape a per-output-channel vector so that it broadcasts over the operator's output."""
        return vector if self.kind is Kind.LINEAR else vector.reshape(-1, 1, 1)


class IntegerOperator:
    """An operator with INT8 weights, applied to INT8 codes with an exact INT32 result.

    A floating-point sum of integers is exact, in any order, while every partial sum fits the mantissa. Partial
    sums are bounded by ``127 * max_c sum|W[c]|``: below 2^24 float32 is exact, else float64 is.

    Args:
        operator: the geometry.
        weight: int8, PyTorch's layout for the operator.
    """

    def __init__(self, operator: Operator, weight: torch.Tensor) -> None:
        self.operator = operator
        self.weight = weight
        bound: int = CODE_LIMIT * int(operator.per_channel(weight).to(torch.int64).abs().sum(1).max())
        assert bound < _EXACT_FLOAT64
        self._float_weight = weight.to(torch.float32 if bound < _EXACT_FLOAT32 else torch.float64)

    def __call__(self, codes: torch.Tensor) -> torch.Tensor:
        """Apply to ``codes`` (integers of magnitude <= 127 in any dtype); int32 result, exact."""
        # NNPACK and cuDNN know Winograd transforms, whose intermediate values are not integers.
        with torch.backends.nnpack.flags(enabled=False):
            return self.operator(codes.to(self._float_weight.dtype), self._float_weight).to(torch.int32)


@dataclass(frozen=True)
class LayerArithmetic:
    """Everything about a layer that stays the same over a job.

    Attributes:
        planes: INT8 operators; ``[0]`` main weights, ``[1]``, where present, residual weights.
        scales: float32 ``[planes, OC]``: ``m0 = fl(s * w_c)``, ``m1 = fl(m0 / 254)``.
        bias: float32 ``[OC]``.
        inverse_step: float32 scalar tensor ``fl(1 / s)``.
        lattice_bits: ``L``, at most 16; ``|A| <= 2^(L-1) - 1``.
        keeps_history: whether a plan extrapolates this layer.
        code_limit: largest code of a pass on the main plane. Devices know ``PASS_LIMIT`` alone; narrower codes, without
            spill, are for comparison with the literature's 6, 4 and 3 bit changes (``calib.evaluate``).
    """

    planes: tuple[IntegerOperator, ...]
    scales: torch.Tensor
    bias: torch.Tensor
    inverse_step: torch.Tensor
    lattice_bits: int
    keeps_history: bool = False
    code_limit: int = PASS_LIMIT

    @property
    def limit(self) -> int:
        """Largest magnitude of a lattice value."""
        return int(2 ** (self.lattice_bits - 1) - 1)


@dataclass
class LayerState:
    """What a layer carries from step to step of one job (or of a batch of jobs in lockstep).

    Attributes:
        lattice: per plane, int16, shaped as the input.
        accumulator: per plane, int32, shaped as the output.
        history: float32, shaped as the output: ``y`` before the newest refresh, where it is kept.
        refreshes: steps with a main pass so far; 0 means fresh.
        last_step, previous_step: sampler steps of the newest two refreshes.
    """

    lattice: list[torch.Tensor]
    accumulator: list[torch.Tensor]
    history: torch.Tensor | None = None
    refreshes: int = 0
    last_step: int = 0
    previous_step: int = 0


@dataclass
class StepCounts:
    """What the steps of a job have cost; add up over layers and steps."""

    passes: int = 0
    residual_passes: int = 0
    saturated: int = 0
    elements: int = 0
    """Input elements that the counted main passes looked at: what ``saturated`` is a share of."""

    def add(self, other: StepCounts) -> None:
        """Add another layer's or job's counts to these."""
        self.passes += other.passes
        self.residual_passes += other.residual_passes
        self.saturated += other.saturated
        self.elements += other.elements


def fresh_state(layer: LayerArithmetic, x: torch.Tensor) -> LayerState:
    """The state at the start of a job: all zero, shaped for an input like ``x``."""
    lattice = [torch.zeros(x.shape, dtype=torch.int16) for _ in layer.planes]
    accumulator = [plane(torch.zeros_like(x)) for plane in layer.planes]
    return LayerState(lattice, accumulator)


def quantize_change(
    x: torch.Tensor,
    lattice: torch.Tensor,
    exponent: int,
    inverse_step: torch.Tensor,
    limit: int,
    *,
    code_limit: int = PASS_LIMIT,
) -> tuple[torch.Tensor, int]:
    """The code of one pass: how far the lattice should move, in units of ``2^exponent``.

    The clamp keeps the code within +-``code_limit`` and the moved lattice within +-``limit``. A NaN moves nothing.

    Args:
        x: float32, the layer's input.
        lattice: int16, shaped as ``x``.
        exponent: ``k`` of the pass, >= 0.
        inverse_step: float32 scalar tensor ``fl(1 / s)``.
        limit: ``2^(L-1) - 1``.
        code_limit: largest magnitude of a code.

    Returns:
        The codes as float32 integers, and how many elements were clamped or NaN.
    """
    wide = lattice.to(torch.float32)  # exact, as is what is made of it below: integers under 2^24
    rounded = (x * inverse_step).sub_(wide).mul_(2.0**-exponent).round_()
    codes = rounded.nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
    farthest = max(map(abs, map(int, lattice.aminmax()))) if lattice.numel() else 0
    if (limit - farthest) >> exponent >= code_limit:  # no code can leave the lattice
        codes.clamp_(-code_limit, code_limit)
    else:
        lowest = (wide + limit).mul_(2.0**-exponent).floor_().neg_().clamp_(min=-code_limit)
        highest = (limit - wide).mul_(2.0**-exponent).floor_().clamp_(max=code_limit)
        codes.clamp_(lowest, highest)
    return codes, int(torch.count_nonzero(codes != rounded))


def run_pass(layer: LayerArithmetic, state: LayerState, plane: int, x: torch.Tensor, exponent: int) -> int:
    """One pass on one plane, in place; returns how many elements saturated."""
    code_limit = layer.code_limit if plane == 0 else PASS_LIMIT
    codes, saturated = quantize_change(
        x, state.lattice[plane], exponent, layer.inverse_step, layer.limit, code_limit=code_limit
    )
    first = codes.clamp(-CODE_LIMIT, CODE_LIMIT)
    _move(layer, state, plane, first, exponent)
    if not torch.equal(first, codes):
        _move(layer, state, plane, codes - first, exponent)
    return saturated


def _move(layer: LayerArithmetic, state: LayerState, plane: int, codes: torch.Tensor, exponent: int) -> None:
    """Lattice and accumulator of a plane by INT8 codes."""
    state.lattice[plane] += codes.to(torch.int16) << exponent
    state.accumulator[plane].add_(layer.planes[plane](codes), alpha=1 << exponent)


def read_output(layer: LayerArithmetic, state: LayerState) -> torch.Tensor:
    """``y`` of the accumulators: float32, ``fl(fl(m0 * O0) + fl(m1 * O1)) + b``, each operation rounded."""
    shape = layer.planes[0].operator.channel_shape
    y = state.accumulator[0].to(torch.float32).mul_(shape(layer.scales[0]))
    for plane in range(1, len(layer.planes)):
        y += state.accumulator[plane].to(torch.float32).mul_(shape(layer.scales[plane]))
    return y.add_(shape(layer.bias))


def extrapolate(layer: LayerArithmetic, state: LayerState, step: int) -> torch.Tensor:
    """``y`` at a step without a refresh, on the line through the last two refreshes; holds while there is one."""
    newest = read_output(layer, state)
    if state.history is None or state.refreshes < 2:
        return newest
    share = torch.tensor(float(step - state.last_step)) / torch.tensor(float(state.last_step - state.previous_step))
    return newest + share * (newest - state.history)


def run_step(
    layer: LayerArithmetic,
    state: LayerState,
    x: torch.Tensor,
    *,
    row: PlanRow,
    step: int,
    counts: StepCounts | None = None,
) -> torch.Tensor:
    """One sampler step of one layer, state in place.

    Args:
        layer: weights and scales.
        state: of this job; a fresh one must come with the plan's anchor row.
        x: float32, the layer's input; shape of the state.
        row: the plan's row for this step.
        step: sampler step ``i``.
        counts: where to add this step's passes and saturated elements.

    Returns:
        float32 output of the operator.
    """
    refresh = bool(row.exponents)
    if refresh:
        if layer.keeps_history and state.refreshes > 0:
            state.history = read_output(layer, state)
        state.previous_step, state.last_step = state.last_step, step
        state.refreshes += 1
    saturated = 0
    for exponent in row.exponents:
        saturated = run_pass(layer, state, 0, x, exponent)
    if len(layer.planes) > 1:
        for exponent in row.residual_exponents:
            run_pass(layer, state, 1, x, exponent)
    if counts is not None:
        counts.passes += len(row.exponents)
        counts.residual_passes += len(row.residual_exponents) if len(layer.planes) > 1 else 0
        counts.saturated += saturated
        counts.elements += x.numel() if refresh else 0
    if refresh or not row.extrapolates:
        return read_output(layer, state)
    return extrapolate(layer, state, step)
