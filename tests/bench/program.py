"""The operator calls of a ``.pte``, in the order in which the runtime executes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.exir.schema import (
    Bool,
    DelegateCall,
    FreeCall,
    Int,
    IntList,
    JumpFalseCall,
    KernelCall,
    MoveCall,
    Tensor,
)

from edge.operators import NAMESPACE, OPERATORS

WIDTHS = {"FLOAT": 4, "INT": 4, "LONG": 8, "SHORT": 2, "CHAR": 1, "BYTE": 1, "BOOL": 1, "HALF": 2, "DOUBLE": 8}


@dataclass(frozen=True)
class TensorShape:
    """A tensor argument: sizes, and bytes of one element."""

    sizes: tuple[int, ...]
    width: int

    @property
    def elements(self) -> int:
        """How many."""
        return prod(self.sizes)

    @property
    def bytes(self) -> int:
        """Of all elements."""
        return self.elements * self.width


@dataclass(frozen=True)
class Call:
    """One instruction of a program.

    Attributes:
        operator: ``namespace::name``, or ``delegate:BACKEND``.
        tensors: its arguments by position; None where an argument is no tensor.
        named: of our operators, the arguments that are tensors, integers or lists of them, by name.
    """

    operator: str
    tensors: tuple[TensorShape | None, ...]
    named: Mapping[str, Any] = field(default_factory=dict)

    @property
    def modulated(self) -> bool:
        """Whether it is one of our linear operators."""
        return self.operator in {f"{NAMESPACE}::conv2d", f"{NAMESPACE}::linear"}

    @property
    def channels(self) -> int:
        """Of a modulated layer's input, skip included."""
        skip = self.named.get("skip")
        return int(self.named["x"].sizes[-1]) + (skip.sizes[-1] if skip else 0)

    @property
    def inputs(self) -> int:
        """Elements of a modulated layer's input, skip included, before upsampling."""
        return int(prod(self.named["x"].sizes[:-1])) * self.channels

    @property
    def prologue(self) -> bool:
        """Whether a modulated layer reads its input through a normalization or an activation."""
        return bool(self.named.get("norm") or self.named.get("activation"))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one pass of a modulated layer."""
        taps = int(prod(self.named.get("kernel", (1,))))
        groups = int(self.named.get("groups", 1))
        if self.named.get("transposed"):
            return self.inputs * taps * self.output.sizes[-1] // groups
        return self.output.elements * taps * self.channels // groups

    @property
    def output(self) -> TensorShape:
        """The last tensor argument."""
        return [tensor for tensor in self.tensors if tensor is not None][-1]

    @property
    def label(self) -> str:
        """Operator and the sizes of its input (skip included) and output, for tables."""
        first = next((tensor for tensor in self.tensors if tensor is not None), None)
        joined = (*self.named["x"].sizes[:-1], self.channels) if self.modulated else first.sizes if first else ()
        sizes = "x".join(map(str, joined))
        return f"{self.operator} {sizes} -> {'x'.join(map(str, self.output.sizes))}" if first else self.operator


@lru_cache(maxsize=16)
def read_calls(path: Path, method: str) -> tuple[Call, ...]:
    """Every instruction of ``method``."""
    program: Any = deserialize_pte_binary(path.read_bytes()).program
    plan = next(plan for plan in program.execution_plan if plan.name == method)
    calls = []
    for chain in plan.chains:
        for instruction in chain.instructions:
            match instruction.instr_args:
                case KernelCall(op_index=index, args=arguments):
                    name = plan.operators[index].name
                case DelegateCall(delegate_index=index, args=arguments):
                    name = f"delegate:{plan.delegates[index].id}"
                case FreeCall() | MoveCall() | JumpFalseCall() as other:
                    name, arguments = type(other).__name__, []
                case other:
                    raise TypeError(f"unknown instruction {other!r}")
            values = [_value(plan.values, argument) for argument in arguments]
            tensors = tuple(value if isinstance(value, TensorShape) else None for value in values)
            calls.append(Call(name, tensors, _named(name, values)))
    return tuple(calls)


def _named(operator: str, values: list[Any]) -> dict[str, Any]:
    """Arguments by name, of our operators."""
    namespace, _, name = operator.partition("::")
    if namespace != NAMESPACE or name not in OPERATORS:
        return {}
    names = [argument.name for argument in dataclasses.fields(OPERATORS[name][0])]
    return dict(zip(names, values, strict=False))  # the output stands behind them


def _value(values: list[Any], index: int) -> Any:  # noqa: ANN401 - whatever an argument holds
    held = values[index].val
    if isinstance(held, Int):
        return held.int_val
    if isinstance(held, IntList):
        return tuple(values[item].val.int_val for item in held.items)
    if isinstance(held, Bool):
        return held.bool_val
    return _shape(held)


def _shape(value: object) -> TensorShape | None:
    if not isinstance(value, Tensor):
        return None
    return TensorShape(tuple(value.sizes), WIDTHS.get(value.scalar_type.name, 1))
