"""Reading an emitted program back: which operators it calls how often, where its states lie, who writes them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from executorch.exir.schema import KernelCall, Program, Tensor

from edge.errors import LoweringError
from edge.operators import NAMESPACE, OPERATORS
from edge.schema import state_positions

if TYPE_CHECKING:
    from collections.abc import Mapping

ACTIVATION_MEMORY = 1
STATE_MEMORY = 2
"""Memory ids of the planned arenas."""
ALIGNMENT = 16
"""Bytes; every planned tensor starts at a multiple of it."""

STATE_ARGUMENTS = {
    f"{NAMESPACE}::{name}.out": frozenset(state_positions(call).values()) for name, (call, _) in OPERATORS.items()
}
"""Of each operator of ours, the positions of the arguments that it writes."""
COPY_BACK = "aten::copy_"
"""The one other operator that may touch a state: it stores what the sampler keeps at the end of a step."""


@dataclass(frozen=True)
class Call:
    """One kernel call.

    Attributes:
        operator: ``namespace::name.overload``.
        states: per argument position, the offset in the state arena of a tensor that lies there.
    """

    operator: str
    states: Mapping[int, int]


@dataclass(frozen=True)
class MethodReport:
    """One method of an emitted program."""

    operators: tuple[str, ...]
    calls: tuple[Call, ...]
    state_bytes: int
    activation_bytes: int

    @property
    def counts(self) -> dict[str, int]:
        """Calls a step by operator, most first."""
        return dict(Counter(call.operator for call in self.calls).most_common())


def inspect_method(program: Program, name: str) -> MethodReport:
    """Reads method ``name`` of an emitted program.

    Raises:
        LoweringError: other arenas than activations and states, or an instruction that is no kernel call.
    """
    plan = next(plan for plan in program.execution_plan if plan.name == name)
    sizes = plan.non_const_buffer_sizes
    if len(sizes) != STATE_MEMORY + 1:
        raise LoweringError(f"the program plans {len(sizes) - 1} arenas instead of 2", where=name)
    names = [f"{op.name}.{op.overload}" if op.overload else op.name for op in plan.operators]
    calls = []
    for instruction in (instruction for chain in plan.chains for instruction in chain.instructions):
        arguments = instruction.instr_args
        if not isinstance(arguments, KernelCall):
            raise LoweringError(f"the program holds a {type(arguments).__name__}", where=name)
        states = {}
        for position, index in enumerate(arguments.args):
            value = plan.values[index].val
            place = value.allocation_info if isinstance(value, Tensor) else None
            if place is not None and place.memory_id == STATE_MEMORY:
                states[position] = place.memory_offset_low + (place.memory_offset_high << 32)
        calls.append(Call(names[arguments.op_index], states))
    return MethodReport(tuple(sorted(names)), tuple(calls), int(sizes[STATE_MEMORY]), int(sizes[ACTIVATION_MEMORY]))


def runtime_operators() -> frozenset[str]:
    """Names of the kernels in the runtime wheel; the wheels of all architectures carry the same."""
    from executorch.runtime import Runtime  # noqa: PLC0415 - loads the native runtime, which only lowering needs

    return frozenset(Runtime.get().operator_registry.operator_names)


def check_operators(report: MethodReport) -> None:
    """Refuses operators that neither the runtime wheel nor our library has.

    Raises:
        LoweringError: names them.
    """
    missing = [name for name in report.operators if name not in runtime_operators() | STATE_ARGUMENTS.keys()]
    if missing:
        raise LoweringError(
            f"the runtime has no kernel for {', '.join(missing)}",
            where="program",
            mend="the model uses an operation that the device cannot run; replace it in the model",
        )


def check_states(report: MethodReport, expected: Mapping[str, int]) -> None:
    """Refuses a program that copies states, shares one between layers, or plans another arena than expected.

    Args:
        report: of the method.
        expected: bytes of every state buffer by name.

    Raises:
        LoweringError: says what is wrong.
    """
    owners = _owners(report)
    for index, call in enumerate(report.calls):
        if call.operator not in STATE_ARGUMENTS and not owners.keys().isdisjoint(call.states.values()):
            raise LoweringError("the model touches an operator's state", where=f"call {index}, {call.operator}")
    copies = sum(call.operator == COPY_BACK for call in report.calls)
    foreign = {offset for call in report.calls for offset in call.states.values()} - set(owners)
    kept = len(expected) - len(owners)
    if copies != kept or len(foreign) != kept:
        raise LoweringError(f"{copies} copies into {len(foreign)} states of the sampler, expected {kept}")
    arena = sum(-(-size // ALIGNMENT) * ALIGNMENT for size in expected.values())
    if report.state_bytes != arena:
        raise LoweringError(f"the state arena has {report.state_bytes} bytes instead of {arena}")


def _owners(report: MethodReport) -> dict[int, int]:
    """The call that each operator's state belongs to, by offset in the arena.

    Raises:
        LoweringError: a state that is copied, or shared between calls.
    """
    owners: dict[int, int] = {}
    for index, call in enumerate(report.calls):
        written = STATE_ARGUMENTS.get(call.operator)
        if written is None:
            continue
        if not all(position in call.states for position in written):
            raise LoweringError("an operator works on a copy of its state", where=f"call {index}, {call.operator}")
        if set(call.states) != set(written):
            raise LoweringError("an operator reads another layer's state", where=f"call {index}, {call.operator}")
        for offset in call.states.values():
            if owners.setdefault(offset, index) != index:
                raise LoweringError("two calls share one state", where=f"call {index}, {call.operator}")
    return owners
