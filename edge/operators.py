"""The kit's operators: ``modiff::conv2d``, ``linear``, ``normalize``, ``attention``, ``add``, ``multiply``,
``activate`` and ``reuse``.

Importing this module defines the library for PyTorch. Export records calls to these operators; in the program they
become calls of the C++ kernels, which write states in place. Arguments and shapes are declared once, in
``edge.calls``: schemas, output shapes and the eager form follow from there. The eager form (``edge.eager``) runs the
reference arithmetic, so that an exported graph can be executed on the host as a check.

What a modulated layer computes, everything float32 and channels last:

    u = activation(norm(cat(x, skip))), upsampled     not computed at a step without a pass: x may be undefined then
    passes of ``calib.lattice`` over u                (one fused sweep over x and the lattice a pass)
    y = m0*O0 [+ m1*O1] + b, perhaps extrapolated     history is kept of this y
    y = y + shift;  y = out_activation(y);  y = y * gate;  y = y + add      each where present, in this order, rounded

A row with ``skip`` = 1 returns at once: states untouched, output undefined.

``step`` of the operators without a plan table of their own (normalize, attention, add, multiply, activate) is a row
of ``active``. A job may start at any step, and its first step computes everything: give ``active`` T + 1 rows, the
last of them 1, and hand these operators the row ``T`` at a job's first step. The operators with states (conv2d,
linear, reuse) know a job's first step by their counters and get the sampler step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from torch.library import Library

from edge import calls
from edge.eager import floats, modulated
from edge.schema import schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

NAMESPACE = "modiff"
OPERATOR_SET_VERSION = 3
"""Changes whenever a schema or the meaning of an argument changes; the bundle records it."""


class Call(Protocol):
    """A dataclass of ``edge.calls``."""

    def output(self) -> Tensor:
        """An empty tensor of the output's shape and type."""


OPERATORS: dict[str, tuple[type[Any], Callable[[Any], Tensor]]] = {
    "conv2d": (calls.Conv2d, modulated.conv2d),
    "linear": (calls.Linear, modulated.linear),
    "normalize": (calls.Normalize, floats.normalize),
    "attention": (calls.Attention, floats.attention),
    "add": (calls.Binary, floats.add),
    "multiply": (calls.Binary, floats.multiply),
    "activate": (calls.Activate, floats.activate),
    "reuse": (calls.Reuse, modulated.reuse),
}
"""Name -> its arguments, and its eager form."""

OPERATOR_NAMES = tuple(f"{NAMESPACE}::{name}.out" for name in OPERATORS)
"""As a program calls them."""


def _implementations(call: type[Any], function: Callable[[Any], Tensor]) -> tuple[Callable[..., Tensor], ...]:
    """Eager form, eager form with ``out``, and output shape, each with the operator's own arguments."""

    def run(*arguments: object) -> Tensor:
        return function(call(*arguments))

    def run_out(*arguments: object, out: Tensor) -> Tensor:
        return out.copy_(function(call(*arguments)))

    def shape(*arguments: object) -> Tensor:
        return cast("Call", call(*arguments)).output()

    return run, run_out, shape


def _define() -> Library:
    """The library; PyTorch's registration functions carry no types."""
    library: Any = Library(NAMESPACE, "DEF")  # type: ignore[no-untyped-call]
    for name, (call, function) in OPERATORS.items():
        run, run_out, shape = _implementations(call, function)
        library.define(schema(name, call, out=False))
        library.define(schema(name, call, out=True))
        library.impl(name, run, "CPU")
        library.impl(f"{name}.out", run_out, "CPU")
        library.impl(name, shape, "Meta")
    return cast("Library", library)


LIBRARY = _define()
"""Keeps the definitions alive as long as this module is."""
