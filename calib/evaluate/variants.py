"""Modulated models that no device runs: narrow codes, and changes that forget their quantization error.

Both exist for the comparison with the paper. INT8 is the narrowest product that ARM's dot-product instructions have,
so that a narrower code saves a device nothing; the device format (plan tables, operators) does not know them.
"""

from __future__ import annotations

import dataclasses

import torch

from calib.calibration import Calibration
from calib.errors import CalibrationError
from calib.modulated import ModulatedLayer, ModulatedModel
from calib.plan import Plan, PlanRow, coarse_exponent
from calib.ranges import RangeMethod, change_exponents

EIGHT_BITS = 8
NARROWEST, WIDEST = 2, 8


def code_limit(bits: int) -> int:
    """Largest code of ``bits`` bits: ``2^(bits-1) - 1``.

    Raises:
        CalibrationError: a width that the comparison does not know.
    """
    if not NARROWEST <= bits <= WIDEST:
        raise CalibrationError(f"{bits}-bit codes", where="width", mend=f"use {NARROWEST}..{WIDEST} bits")
    return int(2 ** (bits - 1) - 1)


def narrow_plan(
    calibration: Calibration, changes: dict[str, torch.Tensor], method: RangeMethod, bits: int
) -> Calibration:
    """The same calibration with every main pass after the anchor planned for codes of ``bits`` bits.

    A row of two passes (the smallest layers) keeps two: the second reaches what the first one rounds away.

    Args:
        calibration: planned for 8 bits.
        changes: int64 ``[T, BINS]`` histogram of each layer's changes (``LayerObservation.changes``).
        method: how far a pass should reach.
        bits: of the codes.
    """
    layers = {}
    for name, plan in calibration.plan.layers.items():
        layer = calibration.layers[name]
        largest = coarse_exponent(layer.lattice_bits) + EIGHT_BITS - bits
        exponents = change_exponents(changes[name], layer.step, method, largest=largest, code_limit=code_limit(bits))
        rows = tuple(
            dataclasses.replace(row, exponents=_exponents(row, k, bits))
            for row, k in zip(plan.rows, exponents, strict=True)
        )
        layers[name] = dataclasses.replace(plan, rows=rows)
    return dataclasses.replace(calibration, plan=Plan(calibration.plan.steps, layers, calibration.plan.points))


def _exponents(row: PlanRow, exponent: int, bits: int) -> tuple[int, ...]:
    return (exponent, max(0, exponent - bits + 1))[: len(row.exponents)]


def narrow_codes(model: ModulatedModel, bits: int) -> None:
    """Cut the codes of every main pass after the anchor to ``bits`` bits, in place; the anchor keeps its 8.

    The anchor stands for the full-precision first step of the paper's code.
    """
    for layer in model.layers.values():
        layer.register_forward_pre_hook(_Narrow(layer, code_limit(bits)))


class _Narrow:
    """Before each call: 8-bit codes for a fresh state, narrow ones after it."""

    def __init__(self, layer: ModulatedLayer, limit: int) -> None:
        self.wide = layer.arithmetic
        self.narrow = dataclasses.replace(layer.arithmetic, code_limit=limit)

    def __call__(self, layer: ModulatedLayer, _: tuple[torch.Tensor, ...]) -> None:
        layer.arithmetic = self.wide if layer.state is None else self.narrow


def forget_errors(model: ModulatedModel) -> None:
    """Take the error compensation away, in place: each change is that of the float input since the last step.

    That is MoDiff without equation 14: ``a^_t = Q(a_t - a_(t+1)) + a^_(t+1)`` with the float ``a_(t+1)``, so that the
    errors of all steps add up. The integer state and its invariants stay as they are.
    """
    for layer in model.layers.values():
        layer.register_forward_pre_hook(_Forgetful())


class _Forgetful:
    """Gives a layer, instead of its input, what its lattice stands for moved by the input's float change."""

    def __init__(self) -> None:
        self.previous: torch.Tensor | None = None

    def __call__(self, layer: ModulatedLayer, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        (x,) = inputs
        previous, self.previous = self.previous, x
        if layer.state is None or previous is None:
            return inputs
        stands_for = layer.state.lattice[0].to(torch.float32) * layer.weights.step
        return (stands_for.reshape(x.shape) + (x - previous),)
