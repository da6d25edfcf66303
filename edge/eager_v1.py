"""The operators on the host: states in the device's layout, arithmetic of ``calib.lattice``.

Slow on purpose: it exists to check exported graphs and kernels, never to sample. Arguments are those of the schemas
in ``edge.operators``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from calib import lattice as oracle
from calib.plan import PlanRow
from edge.packing import WeightShape, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence


def conv2d(  # noqa: PLR0917 - the operator's own arguments
    x: Tensor,
    step: Tensor,
    lattice: Tensor,
    accumulator: Tensor,
    history: Tensor,
    counters: Tensor,
    weight: Tensor,
    residual_weight: Tensor,
    scale: Tensor,
    bias: Tensor,
    table: Tensor,
    inverse_step: float,
    lattice_bits: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    transposed: bool,
    direct: bool,
    output_size: Sequence[int],
) -> Tensor:
    """``modiff::conv2d``: float32 [N, C, H, W] -> [N, OC, *output_size]; states change in place."""
    shape = WeightShape(scale.shape[1], x.shape[1], _pair(kernel), groups, transposed)
    kind = oracle.Kind.TRANSPOSED if transposed else oracle.Kind.CONV
    covered = [
        (size - 1) * s - 2 * p + d * (k - 1) + 1
        for size, s, p, d, k in zip(x.shape[2:], stride, padding, dilation, kernel, strict=True)
    ]
    excess = [wanted - covers for wanted, covers in zip(output_size, covered, strict=True)] if transposed else [0, 0]
    operator = oracle.Operator(kind, _pair(stride), _pair(padding), _pair(dilation), groups, _pair(excess))
    planes = _planes(operator, shape, (weight, residual_weight)[: scale.shape[0]])
    inverse = torch.tensor(inverse_step, dtype=torch.float32)
    layer = oracle.LayerArithmetic(planes, scale, bias, inverse, lattice_bits, keeps_history=history.dim() > 1)
    return _run(layer, x, step, _States(lattice, accumulator, history, counters), table, direct=direct)


def linear(  # noqa: PLR0917 - the operator's own arguments
    x: Tensor,
    step: Tensor,
    lattice: Tensor,
    accumulator: Tensor,
    history: Tensor,
    counters: Tensor,
    weight: Tensor,
    residual_weight: Tensor,
    scale: Tensor,
    bias: Tensor,
    table: Tensor,
    inverse_step: float,
    lattice_bits: int,
    direct: bool,
) -> Tensor:
    """``modiff::linear``: float32 [..., C] -> [..., OC]; states change in place."""
    shape = WeightShape(scale.shape[1], x.shape[-1])
    operator = oracle.Operator(oracle.Kind.LINEAR)
    planes = _planes(operator, shape, (weight, residual_weight)[: scale.shape[0]])
    inverse = torch.tensor(inverse_step, dtype=torch.float32)
    layer = oracle.LayerArithmetic(planes, scale, bias, inverse, lattice_bits, keeps_history=history.dim() > 1)
    states = _States(lattice, accumulator, history, counters)
    y = _run(layer, x.reshape(-1, x.shape[-1]), step, states, table, direct=direct)
    return y.reshape(*x.shape[:-1], -1)


@dataclass(frozen=True)
class _States:
    """A layer's states in the device's layout: channels last."""

    lattice: Tensor
    accumulator: Tensor
    history: Tensor
    counters: Tensor

    def read(self, *, keeps_history: bool) -> oracle.LayerState:
        """A copy in the oracle's layout."""
        refreshes, last_step, previous_step, _ = self.counters.tolist()
        return oracle.LayerState(
            [_channels_first(plane) for plane in self.lattice],
            [_channels_first(plane) for plane in self.accumulator],
            _channels_first(self.history) if keeps_history and refreshes > 1 else None,
            refreshes,
            last_step,
            previous_step,
        )

    def write(self, state: oracle.LayerState) -> None:
        """Stores the oracle's state in place."""
        self.lattice.copy_(torch.stack([_channels_last(plane) for plane in state.lattice]))
        self.accumulator.copy_(torch.stack([_channels_last(plane) for plane in state.accumulator]))
        if state.history is not None:
            self.history.copy_(_channels_last(state.history))
        counters = [state.refreshes, state.last_step, state.previous_step]
        self.counters[:3] = torch.tensor(counters, dtype=torch.int32)


def _planes(
    operator: oracle.Operator, shape: WeightShape, packed: Sequence[Tensor]
) -> tuple[oracle.IntegerOperator, ...]:
    """The oracle's operators from packed weights."""
    weights = [unpack(weight, shape) for weight in packed]
    if operator.kind is oracle.Kind.LINEAR:
        weights = [weight.reshape(weight.shape[:2]) for weight in weights]
    return tuple(oracle.IntegerOperator(operator, weight) for weight in weights)


def _run(
    layer: oracle.LayerArithmetic, x: Tensor, step: Tensor, states: _States, table: Tensor, *, direct: bool
) -> Tensor:
    """One step of one layer; a fresh delta layer runs the anchor, whatever the step."""
    index = int(step)
    if direct:
        scratch = oracle.fresh_state(layer, x)
        return oracle.run_step(layer, scratch, x, row=plan_row(table[index]), step=index).contiguous()
    state = states.read(keeps_history=layer.keeps_history)
    row = plan_row(table[index if state.refreshes else -1])
    y = oracle.run_step(layer, state, x, row=row, step=index)
    states.write(state)
    return y.contiguous()


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


def _pair(values: Sequence[int]) -> tuple[int, int]:
    return (values[0], values[1])
