"""The operator calls of a ``.pte``, in the order in which the runtime executes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.exir.schema import DelegateCall, FreeCall, JumpFalseCall, KernelCall, MoveCall, Tensor

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
    """

    operator: str
    tensors: tuple[TensorShape | None, ...]

    @property
    def modulated(self) -> bool:
        """Whether it is one of our linear operators."""
        namespace, _, name = self.operator.partition("::")
        return namespace.startswith("modiff") and name in {"conv2d", "linear"}

    @property
    def output(self) -> TensorShape:
        """The last tensor argument."""
        return [tensor for tensor in self.tensors if tensor is not None][-1]

    @property
    def label(self) -> str:
        """Operator and the sizes of its input and output, for tables."""
        first = next((tensor for tensor in self.tensors if tensor is not None), None)
        sizes = "x".join(map(str, first.sizes)) if first else ""
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
            calls.append(Call(name, tuple(_shape(plan.values[argument].val) for argument in arguments)))
    return tuple(calls)


def _shape(value: object) -> TensorShape | None:
    if not isinstance(value, Tensor):
        return None
    return TensorShape(tuple(value.sizes), WIDTHS.get(value.scalar_type.name, 1))
