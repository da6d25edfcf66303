"""Operator modules: one linear layer of the model as a call of a ``modiff`` operator, its state in buffers.

A module here holds exactly what the C++ kernel gets: states (zero), packed weights, output scales, bias and the
plan table. It computes nothing itself, and nothing is fused yet: prologue and epilogue are empty, and convolutions
permute to channels last and back at their borders (``edge.lower.fuse`` does away with that).
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import edge.operators  # noqa: F401  (defines torch.ops.modiff)
from calib.lattice import Kind, Operator
from calib.plan import Mode
from calib.standin import StandIn
from edge.calls import Activation, Norm
from edge.errors import LoweringError
from edge.packing import WeightShape, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calib.lattice import LayerArithmetic
    from calib.plan import LayerPlan

STATES = ("lattice", "accumulator", "history", "counters")
"""Buffers that the operators write, in the order of their arguments."""


NO_PROLOGUE = (int(Norm.NONE), 1, 0.0, None, None, int(Activation.NONE))
"""norm, norm_groups, norm_eps, norm_weight, norm_bias, activation."""
NO_EPILOGUE = (None, int(Activation.NONE), None, None)
"""shift, out_activation, gate, add."""


class StepHolder:
    """Where the program puts the step index (int64 [1]) and every operator module finds it.

    A plain object, so that neither ``state_dict`` nor export takes it for part of the model.
    """

    def __init__(self) -> None:
        self.step: Tensor | None = None


class OperatorLayer(StandIn):
    """What both operators share: states, weights, scales, plan.

    Args:
        arithmetic: the oracle's view of the layer.
        plan: of this layer.
        shape: of the weight.
        input_shape: of a lattice plane, channels last: [N, H, W, C], or [P, C] for linear.
        output_shape: the same of an accumulator plane.
        holder: where the step index is found.
    """

    lattice: Tensor
    accumulator: Tensor
    history: Tensor
    counters: Tensor
    packed_weight: Tensor
    residual_weight: Tensor
    scale: Tensor
    output_bias: Tensor
    table: Tensor

    def __init__(
        self,
        arithmetic: LayerArithmetic,
        plan: LayerPlan,
        shape: WeightShape,
        *,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        holder: StepHolder,
    ) -> None:
        super().__init__()
        self.direct = plan.mode is Mode.DIRECT
        self.lattice_bits = arithmetic.lattice_bits
        self.inverse_step = float(arithmetic.inverse_step)
        self.holder = holder
        planes = len(arithmetic.planes)
        history = output_shape if arithmetic.keeps_history and not self.direct else [1]
        self._state("lattice", [1] if self.direct else [planes, *input_shape], torch.int16)
        self._state("accumulator", [1] if self.direct else [planes, *output_shape], torch.int32)
        self._state("history", history, torch.float32)
        self._state("counters", [4], torch.int32)
        packed = [pack(plane.weight.reshape(shape.torch_shape), shape) for plane in arithmetic.planes]
        self.register_buffer("packed_weight", packed[0])
        self.register_buffer("residual_weight", packed[1] if planes == 2 else torch.zeros(1, dtype=torch.int8))
        self.register_buffer("scale", arithmetic.scales.detach().to(torch.float32).clone())
        self.register_buffer("output_bias", arithmetic.bias.detach().to(torch.float32).clone())
        self.register_buffer("table", torch.from_numpy(plan.operator_table()))

    def _state(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.register_buffer(name, torch.zeros(*shape, dtype=dtype))

    @property
    def step(self) -> Tensor:
        """The step index the program was called with."""
        if self.holder.step is None:
            raise LoweringError("an operator module runs outside its program", mend="call the program, not the layer")
        return self.holder.step

    def _operands(self) -> tuple[object, ...]:
        """What both operators are given after their inputs."""
        return (
            self.step, self.lattice, self.accumulator, self.history, self.counters,
            self.packed_weight, self.residual_weight, self.scale, self.output_bias, self.table,
            self.inverse_step, self.lattice_bits, self.direct,
        )  # fmt: skip

    def reset(self) -> None:
        """Zeroes the states: a new job."""
        for name in STATES:
            getattr(self, name).zero_()


class OperatorConv(OperatorLayer):
    """``modiff::conv2d`` on [N, C, H, W], or on [N, C, W] lifted to height 1.

    Args:
        arithmetic: the oracle's view of the layer; its operator is a convolution, transposed or not.
        plan: of this layer.
        input_shape: of the tensor the layer is called with.
        output_shape: of what it returns.
        holder: where the step index is found.
    """

    def __init__(
        self,
        arithmetic: LayerArithmetic,
        plan: LayerPlan,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        holder: StepHolder,
    ) -> None:
        operator, kernel = arithmetic.planes[0].operator, arithmetic.planes[0].weight.shape[2:]
        one_dimensional = len(input_shape) == 3
        batch, channels, height, width = _lift(input_shape) if one_dimensional else input_shape
        _, out_channels, out_height, out_width = _lift(output_shape) if one_dimensional else output_shape
        transposed = operator.kind is Kind.TRANSPOSED
        shape = WeightShape(out_channels, channels, (kernel[0], kernel[1]), operator.groups, transposed=transposed)
        super().__init__(
            arithmetic,
            plan,
            shape,
            input_shape=[batch, height, width, channels],
            output_shape=[batch, out_height, out_width, out_channels],
            holder=holder,
        )
        self.one_dimensional = one_dimensional
        self.operator: Operator = operator
        self.shape = shape
        self.output_size = [out_height, out_width]

    def forward(self, x: Tensor) -> Tensor:
        """Float32 [N, C, H, W] -> [N, OC, OH, OW] (or without H and OH)."""
        lifted = x.reshape(_lift(x.shape)) if self.one_dimensional else x  # a view, which costs nothing on the device
        last = torch.ops.modiff.conv2d(
            lifted.permute(0, 2, 3, 1).contiguous(), None, *self._operands(), *NO_PROLOGUE, *NO_EPILOGUE, 1,
            list(self.shape.kernel), list(self.operator.stride), list(self.operator.padding),
            list(self.operator.dilation), self.shape.groups, self.shape.transposed, self.output_size,
        )  # fmt: skip
        y: Tensor = last.permute(0, 3, 1, 2).contiguous()
        return y.reshape(y.shape[0], y.shape[1], y.shape[3]) if self.one_dimensional else y


class OperatorLinear(OperatorLayer):
    """``modiff::linear`` on [..., C].

    Args:
        arithmetic: the oracle's view of the layer; its operator is linear.
        plan: of this layer.
        input_shape: of the tensor the layer is called with.
        holder: where the step index is found.
    """

    def __init__(
        self, arithmetic: LayerArithmetic, plan: LayerPlan, input_shape: Sequence[int], holder: StepHolder
    ) -> None:
        out_channels, in_channels = arithmetic.planes[0].weight.shape
        rows = prod(input_shape[:-1])
        shape = WeightShape(out_channels, in_channels)
        states = {"input_shape": [rows, in_channels], "output_shape": [rows, out_channels]}
        super().__init__(arithmetic, plan, shape, **states, holder=holder)

    def forward(self, x: Tensor) -> Tensor:
        """Float32 [..., C] -> [..., OC]."""
        y: Tensor = torch.ops.modiff.linear(x, None, *self._operands(), *NO_PROLOGUE, *NO_EPILOGUE)
        return y


def build_layer(
    arithmetic: LayerArithmetic,
    plan: LayerPlan,
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    holder: StepHolder,
) -> OperatorLayer:
    """The operator module of a layer.

    Args:
        arithmetic: the oracle's view of the layer.
        plan: of this layer.
        input_shape: of the tensor the layer is called with.
        output_shape: of what it returns.
        holder: where the step index is found.
    """
    if arithmetic.planes[0].operator.kind is Kind.LINEAR:
        return OperatorLinear(arithmetic, plan, input_shape, holder)
    return OperatorConv(arithmetic, plan, input_shape, output_shape, holder)


def _lift(shape: Sequence[int]) -> list[int]:
    """[N, C, W] -> [N, C, 1, W]."""
    return [*shape[:2], 1, *shape[2:]]
