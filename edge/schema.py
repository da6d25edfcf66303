"""Operator schemas from dataclasses: one declaration of an operator's arguments, from which all else follows.

A field's annotation is the argument's type: ``Tensor``, ``Tensor | None``, ``State`` (a tensor that the operator
writes), ``int``, ``float``, ``bool`` or ``list[int]``; their order is the schema's.
"""

from __future__ import annotations

import dataclasses
from string import ascii_lowercase
from typing import Annotated, Any, get_type_hints

from torch import Tensor

_WRITTEN = "written"

State = Annotated[Tensor, _WRITTEN]
"""A tensor that the operator changes in place."""

_TYPES: dict[Any, str] = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    int: "int",
    float: "float",
    bool: "bool",
    list[int]: "int[]",
}


def arguments(call: type[Any]) -> str:
    """The schema's arguments of a dataclass: ``"Tensor x, Tensor(a!) held, int heads"``."""
    hints = get_type_hints(call, include_extras=True)
    aliases = iter(ascii_lowercase)
    parts = []
    for field in dataclasses.fields(call):
        hint = hints[field.name]
        kind = f"Tensor({next(aliases)}!)" if hint == State else _TYPES[hint]
        parts.append(f"{kind} {field.name}")
    return ", ".join(parts)


def state_positions(call: type[Any]) -> dict[str, int]:
    """Name -> position of each argument that the operator writes."""
    hints = get_type_hints(call, include_extras=True)
    return {field.name: i for i, field in enumerate(dataclasses.fields(call)) if hints[field.name] == State}


def schema(name: str, call: type[Any], *, out: bool) -> str:
    """The schema of an operator with the arguments of ``call``, functional or with an ``out`` argument."""
    if out:
        return f"{name}.out({arguments(call)}, *, Tensor(z!) out) -> Tensor(z!)"
    return f"{name}({arguments(call)}) -> Tensor"
