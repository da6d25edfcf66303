"""The modulated operators and the reuse point: states in the device's layout, arithmetic of ``calib.lattice``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from calib import lattice as oracle
from calib.plan import PlanRow
from edge.eager import floats
from edge.packing import WeightShape, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.calls import Conv2d, Linear, Modulated, Reuse

SKIP_COLUMN = 7
"""Of the plan table."""


def conv2d(call: Conv2d) -> Tensor:
    """``modiff::conv2d``: float32 [N, OH, OW, OC]; states change in place."""
    channels = call.x.shape[-1] + (call.skip.shape[-1] if call.skip is not None else 0)
    shape = WeightShape(call.scale.shape[1], channels, _pair(call.kernel), call.groups, call.transposed)
    kind = oracle.Kind.TRANSPOSED if call.transposed else oracle.Kind.CONV
    sizes = [call.upsample * size for size in call.x.shape[1:3]]
    covered = [
        (size - 1) * s - 2 * p + d * (k - 1) + 1
        for size, s, p, d, k in zip(sizes, call.stride, call.padding, call.dilation, call.kernel, strict=True)
    ]
    excess = [a - b for a, b in zip(call.output_size, covered, strict=True)] if call.transposed else [0, 0]
    operator = oracle.Operator(
        kind, _pair(call.stride), _pair(call.padding), _pair(call.dilation), call.groups, _pair(excess)
    )
    x_shape = (call.x.shape[0], channels, *sizes)
    y = _run(call, operator, shape, x_shape, upsample=call.upsample)
    return floats.undefined(call.output()) if y is None else floats.epilogue(call, y.permute(0, 2, 3, 1)).contiguous()


def linear(call: Linear) -> Tensor:
    """``modiff::linear``: float32 [..., OC]; states change in place."""
    channels = call.x.shape[-1] + (call.skip.shape[-1] if call.skip is not None else 0)
    shape = WeightShape(call.scale.shape[1], channels)
    rows = call.x.numel() // call.x.shape[-1]
    y = _run(call, oracle.Operator(oracle.Kind.LINEAR), shape, (rows, channels), upsample=1)
    if y is None:
        return floats.undefined(call.output())
    return floats.epilogue(call, y.reshape(*call.x.shape[:-1], -1)).contiguous()


def reuse(call: Reuse) -> Tensor:
    """``modiff::reuse``: refresh, hold or extrapolate a block's output; states change in place."""
    refreshes, last_step, previous_step, _ = call.counters.tolist()
    step = int(call.step)
    kind = int(call.table[step]) if refreshes else 0
    if kind == 0:
        if refreshes and call.history.shape == call.held.shape:
            call.history.copy_(call.held)
        call.held.copy_(call.x)
        call.counters[:3] = torch.tensor([refreshes + 1, step, last_step], dtype=torch.int32)
        return call.x.clone()
    if kind == 1 or refreshes < 2 or call.history.shape != call.held.shape:
        return call.held.clone()
    share = torch.tensor(float(step - last_step)) / torch.tensor(float(last_step - previous_step))
    return call.held + share * (call.held - call.history)


@dataclass(frozen=True)
class _States:
    """A layer's states in the device's layout: channels last, the lattice before upsampling."""

    lattice: Tensor
    accumulator: Tensor
    history: Tensor
    counters: Tensor
    upsample: int

    def read(self, *, keeps_history: bool) -> oracle.LayerState:
        """A copy in the oracle's layout."""
        refreshes, last_step, previous_step, _ = self.counters.tolist()
        return oracle.LayerState(
            [_repeated(_channels_first(plane), self.upsample) for plane in self.lattice],
            [_channels_first(plane) for plane in self.accumulator],
            _channels_first(self.history) if keeps_history and refreshes > 1 else None,
            refreshes,
            last_step,
            previous_step,
        )

    def write(self, state: oracle.LayerState) -> None:
        """Stores the oracle's state in place; pixels that upsampling repeats have equal lattices."""
        every = slice(None, None, self.upsample)
        kept = [plane[..., every, every] if self.upsample != 1 else plane for plane in state.lattice]
        self.lattice.copy_(torch.stack([_channels_last(plane) for plane in kept]))
        self.accumulator.copy_(torch.stack([_channels_last(plane) for plane in state.accumulator]))
        if state.history is not None:
            self.history.copy_(_channels_last(state.history))
        counters = [state.refreshes, state.last_step, state.previous_step]
        self.counters[:3] = torch.tensor(counters, dtype=torch.int32)


def _run(
    call: Modulated, operator: oracle.Operator, shape: WeightShape, x_shape: tuple[int, ...], *, upsample: int
) -> Tensor | None:
    """``y`` before the epilogue in the oracle's layout; None where the row says that nobody reads it."""
    layer = _arithmetic(call, operator, shape)
    index = int(call.step)
    fresh = not call.direct and int(call.counters[0]) == 0
    columns = call.table[-1 if fresh else index]
    if columns[SKIP_COLUMN]:
        return None
    row = plan_row(columns)
    u = torch.zeros(x_shape)
    if row.exponents or row.residual_exponents:
        values = floats.prologue(call.prologue, call.x, call.skip, upsample)
        u = values.reshape(x_shape) if len(x_shape) == 2 else _channels_first(values)
    if call.direct:
        return oracle.run_step(layer, oracle.fresh_state(layer, u), u, row=row, step=index)
    states = _States(call.lattice, call.accumulator, call.history, call.counters, upsample)
    state = states.read(keeps_history=layer.keeps_history)
    y = oracle.run_step(layer, state, u, row=row, step=index)
    states.write(state)
    return y


def _arithmetic(call: Modulated, operator: oracle.Operator, shape: WeightShape) -> oracle.LayerArithmetic:
    """The oracle's view of a call."""
    weights = [unpack(weight, shape) for weight in (call.weight, call.residual_weight)[: call.scale.shape[0]]]
    if operator.kind is oracle.Kind.LINEAR:
        weights = [weight.reshape(weight.shape[:2]) for weight in weights]
    planes = tuple(oracle.IntegerOperator(operator, weight) for weight in weights)
    inverse = torch.tensor(call.inverse_step, dtype=torch.float32)
    keeps_history = call.history.dim() > 1
    return oracle.LayerArithmetic(planes, call.scale, call.bias, inverse, call.lattice_bits, keeps_history)


def plan_row(columns: Tensor) -> PlanRow:
    """A row of the int8 [T + 1, 8] table as the plan's own type."""
    values = columns.tolist()
    passes, residual_passes = values[0], values[3]
    return PlanRow(tuple(values[1 : 1 + passes]), tuple(values[4 : 4 + residual_passes]), bool(values[6]))


def _channels_first(state: Tensor) -> Tensor:
    """[N, H, W, C] -> a copy [N, C, H, W]; two dimensions are copied as they are."""
    return (state.permute(0, 3, 1, 2) if state.dim() == 4 else state).clone(memory_format=torch.contiguous_format)


def _channels_last(state: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, H, W, C]; two dimensions stay."""
    return state.permute(0, 2, 3, 1) if state.dim() == 4 else state


def _repeated(plane: Tensor, times: int) -> Tensor:
    """[N, C, H, W] with every pixel ``times`` times in each direction."""
    if times == 1:
        return plane
    return plane.repeat_interleave(times, 2).repeat_interleave(times, 3)


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return (values[0], values[1])
