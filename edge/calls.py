"""The arguments of the kit's operators, in the order of their schemas, and the shape of what they return.

Everything is float32 and channels last: a feature map is a contiguous [N, H, W, C], a token sequence [N, P, C], any
row of features [..., C]. ``edge.operators`` says what the operators do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from edge.schema import State

if TYPE_CHECKING:
    from torch import Tensor
else:
    from torch import Tensor  # the schemas are read from the annotations


class Norm(IntEnum):
    """Normalization before a layer."""

    NONE = 0
    GROUP = 1
    """Over positions and the channels of a group, per image (the first dimension of x)."""
    LAYER = 2
    """Over the channels of a position."""
    RMS = 3
    """Over the channels of a position, without the mean."""


class Activation(IntEnum):
    """Elementwise function."""

    NONE = 0
    SILU = 1
    GELU = 2
    """With erf."""
    GELU_TANH = 3
    RELU = 4


@dataclass(frozen=True)
class Prologue:
    """u = activation(norm(cat(x, skip))), upsampled by repetition.

    Attributes:
        norm: a ``Norm``.
        groups: of the channels of x and skip together; read by ``Norm.GROUP`` alone.
        eps: added to the variance (or the mean square).
        weight: float32 [C], or [N or 1, C] (AdaLN: 1 + scale); None is 1.
        bias: likewise; None is 0.
        activation: an ``Activation``.
    """

    norm: int
    groups: int
    eps: float
    weight: Tensor | None
    bias: Tensor | None
    activation: int


@dataclass(frozen=True)
class _Prologued:
    """Arguments of the prologue, wherever they stand in a schema."""

    @property
    def prologue(self) -> Prologue:
        """The prologue of this call."""
        fields = ("norm", "norm_groups", "norm_eps", "norm_weight", "norm_bias", "activation")
        return Prologue(*(getattr(self, name) for name in fields))


@dataclass(frozen=True)
class Modulated(_Prologued):
    """What ``linear`` and ``conv2d`` begin with. C is the channel count of x and skip together.

    Attributes:
        x: float32 [N, H, W, Cx]; linear [..., Cx].
        skip: float32 like x but for its channels, which follow those of x; None.
        step: int64 [1].
        lattice: int16 [planes, N, H, W, C], of x *before* upsampling; linear [planes, P, C]; [1] when direct.
        accumulator: int32 [planes, N, OH, OW, OC]; linear [planes, P, OC]; [1] when direct.
        history: float32 [N, OH, OW, OC]; linear [P, OC]; [1] when the plan never extrapolates. Before the epilogue.
        counters: int32 [4]: refreshes, last refreshed step, the one before, reserved.
        weight: int8 [packed] (``edge.packing``).
        residual_weight: likewise; [1] when there is one plane.
        scale: float32 [planes, OC]: s*w_c, and s*w_c/254.
        bias: float32 [OC].
        table: int8 [T + 1, 8]; row T is the anchor. Columns: passes, k0, k1, residual passes, rk0, rk1,
            reuse (0 hold, 1 extrapolate), skip (1: nobody reads the output at this step; only with 0 passes).
        inverse_step: fl(1 / s).
        lattice_bits: L.
        direct: no state is kept between steps.
        norm: with norm_groups, norm_eps, norm_weight, norm_bias and activation: the ``Prologue``.
        shift: float32 [N or 1, OC], added to y; None. N is the first dimension of x.
        out_activation: an ``Activation`` of what that gave.
        gate: float32 [N or 1, OC], a factor of what that gave; None.
        add: float32 in the output's shape, added to what that gave; None.
    """

    x: Tensor
    skip: Tensor | None
    step: Tensor
    lattice: State
    accumulator: State
    history: State
    counters: State
    weight: Tensor
    residual_weight: Tensor
    scale: Tensor
    bias: Tensor
    table: Tensor
    inverse_step: float
    lattice_bits: int
    direct: bool
    norm: int
    norm_groups: int
    norm_eps: float
    norm_weight: Tensor | None
    norm_bias: Tensor | None
    activation: int
    shift: Tensor | None
    out_activation: int
    gate: Tensor | None
    add: Tensor | None


@dataclass(frozen=True)
class Linear(Modulated):
    """``modiff::linear``."""

    def output(self) -> Tensor:
        """Empty float32 [..., OC]."""
        return self.x.new_empty([*self.x.shape[:-1], self.scale.shape[1]])


@dataclass(frozen=True)
class Conv2d(Modulated):
    """``modiff::conv2d``. A convolution over a row has a height of 1.

    Attributes:
        upsample: 1, or 2: every pixel of the input is read as a square of 2 x 2 equal ones.
        kernel: [KH, KW]; stride, padding, dilation likewise.
        groups: both channel counts are divisible by it.
        transposed: whether the weight is that of a transposed convolution.
        output_size: [OH, OW].
    """

    upsample: int
    kernel: list[int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int
    transposed: bool
    output_size: list[int]

    def output(self) -> Tensor:
        """Empty float32 [N, OH, OW, OC]."""
        return self.x.new_empty([self.x.shape[0], *self.output_size, self.scale.shape[1]])


@dataclass(frozen=True)
class Normalize(_Prologued):
    """``modiff::normalize``: the prologue alone, for what several layers read.

    Attributes:
        x: float32 [N, H, W, Cx], or [..., Cx] without upsampling.
        skip: as in ``Modulated``.
        step: int64 [1], a row of ``active``.
        active: int8 [rows]; 0: the operator returns at once, its output undefined.
        upsample: 1 or 2; the rest is the ``Prologue``.
    """

    x: Tensor
    skip: Tensor | None
    step: Tensor
    active: Tensor
    norm: int
    norm_groups: int
    norm_eps: float
    norm_weight: Tensor | None
    norm_bias: Tensor | None
    activation: int
    upsample: int

    def output(self) -> Tensor:
        """Empty float32 [N, upsample*H, upsample*W, C], or [..., C]."""
        channels = self.x.shape[-1] + (self.skip.shape[-1] if self.skip is not None else 0)
        shape = list(self.x.shape[:-1])
        if self.upsample != 1:
            shape = [shape[0], *(self.upsample * size for size in shape[1:])]
        return self.x.new_empty([*shape, channels])


@dataclass(frozen=True)
class Attention:
    """``modiff::attention``: softmax(scale * q k^T) v per head, in float32.

    Attributes:
        q: float32 [N, P, heads * D].
        k: float32 [N, S, heads * D]; v likewise.
        step: int64 [1], a row of ``active``.
        active: int8 [rows].
        heads: divides the channels.
        scale: of the scores.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    step: Tensor
    active: Tensor
    heads: int
    scale: float

    def output(self) -> Tensor:
        """Empty float32 like q."""
        return self.q.new_empty(self.q.shape)


@dataclass(frozen=True)
class Binary:
    """``modiff::add`` and ``modiff::multiply``.

    Attributes:
        a: float32 [N, ..., C].
        b: float32 in the shape of a, or [N or 1, C]: the same for every position of an image.
        step: int64 [1], a row of ``active``.
        active: int8 [rows].
    """

    a: Tensor
    b: Tensor
    step: Tensor
    active: Tensor

    def output(self) -> Tensor:
        """Empty float32 like a."""
        return self.a.new_empty(self.a.shape)


@dataclass(frozen=True)
class Activate:
    """``modiff::activate``.

    Attributes:
        x: float32 of any shape.
        step: int64 [1], a row of ``active``.
        active: int8 [rows].
        activation: an ``Activation``.
    """

    x: Tensor
    step: Tensor
    active: Tensor
    activation: int

    def output(self) -> Tensor:
        """Empty float32 like x."""
        return self.x.new_empty(self.x.shape)


@dataclass(frozen=True)
class Reuse:
    """``modiff::reuse``: the output of a block that is not computed at every step.

    Attributes:
        x: float32 of any shape: the block's output; read at a refresh only.
        step: int64 [1].
        held: float32 in the shape of x: the output at the last refresh.
        history: float32 in the shape of x: at the refresh before; [1] when never extrapolated.
        counters: int32 [4]: refreshes, last refreshed step, the one before, reserved.
        table: int8 [T]: 0 refresh, 1 hold, 2 extrapolate. Without a refresh so far, any row is a refresh.
    """

    x: Tensor
    step: Tensor
    held: State
    history: State
    counters: State
    table: Tensor

    def output(self) -> Tensor:
        """Empty float32 like x."""
        return self.x.new_empty(self.x.shape)
