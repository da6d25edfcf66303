"""From a parsed TOML table to a frozen dataclass, with errors that name file, key and allowed values.

A small validator of our own, because the device imports it: pydantic takes longer to import on a
Raspberry Pi than the whole supervisor takes to start. It knows only what board files need: nested
dataclasses, tuples, Literal choices, str, int and float, and the four constraints below.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union

from boards.errors import BoardError

T = TypeVar("T")
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_TOML_NAMES = {
    str: "text",
    int: "an integer",
    list: "a list",
    dict: "a table",
    bool: "true or false",
    float: "a number",
}


@dataclass(frozen=True)
class Range:
    """An integer from ``low`` to ``high``, both allowed."""

    low: int
    high: int


@dataclass(frozen=True)
class Between:
    """A number from ``low`` to ``high``, both allowed; TOML's integers are numbers, too."""

    low: float
    high: float


@dataclass(frozen=True)
class Pattern:
    """Text that matches ``expression`` as a whole; ``meaning`` is what a person is told."""

    expression: str
    meaning: str


@dataclass(frozen=True)
class Size:
    """A positive number of bytes: an integer, or text such as "512 MiB"."""


def build(cls: type[T], table: object, file: str, key: str = "") -> T:
    """Make a ``cls`` (a dataclass) from ``table``.

    Args:
        cls: a dataclass whose annotations are of the kinds the module knows.
        table: what the TOML parser gave.
        file: named in errors.
        key: dotted key of ``table`` within the file; empty for the whole file.

    Raises:
        BoardError: an unknown or missing key, a wrong type, a value outside what is allowed.
    """
    if not isinstance(table, dict):
        raise _wrong(table, "a table", file, key)
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in table:
        if name not in fields:
            raise BoardError("unknown key", where=_place(file, _join(key, name)), mend=_nearest(name, list(fields)))
    values: dict[str, Any] = {}
    for name, each in fields.items():
        if name in table:
            values[name] = _value(hints[name], table[name], file, _join(key, name))
        elif each.default is dataclasses.MISSING:
            expected = _describe(hints[name])
            raise BoardError("the key is missing", where=_place(file, _join(key, name)), mend=f"it takes {expected}")
    return cls(**values)


def nearest(name: str, known: list[str]) -> str:
    """``did you mean 'x'? `` or nothing: a prefix for a mend text."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}? " if close else ""


def _value(hint: Any, value: object, file: str, key: str) -> Any:  # noqa: ANN401  a validator meets every type
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return _constrained(hint, value, file, key)
    if origin is Literal:
        return _choice(typing.get_args(hint), value, file, key)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(value, "a list", file, key)
        inner = typing.get_args(hint)[0]
        return tuple(_value(inner, item, file, f"{key}[{n}]") for n, item in enumerate(value))
    if origin in (Union, types.UnionType):  # only "X | None" occurs; TOML has no null
        return _value(next(a for a in typing.get_args(hint) if a is not type(None)), value, file, key)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, file, key)
    if type(value) is not hint:
        raise _wrong(value, _describe(hint), file, key)
    return value


def _constrained(hint: Any, value: object, file: str, key: str) -> Any:  # noqa: ANN401
    base, *constraints = typing.get_args(hint)
    if any(isinstance(c, Size) for c in constraints):
        return _size(value, file, key)
    if base is float and type(value) is int:
        value = float(value)
    if type(value) is not base:
        raise _wrong(value, _describe(hint), file, key)
    for constraint in constraints:
        _check(constraint, value, file, key)
    return value


def _choice(choices: tuple[str, ...], value: object, file: str, key: str) -> object:
    if value not in choices:
        mend = nearest(str(value), list(choices)) + f"allowed: {', '.join(choices)}"
        raise BoardError(f"{value!r} is not allowed here", where=_place(file, key), mend=mend)
    return value


def _check(constraint: object, value: Any, file: str, key: str) -> None:  # noqa: ANN401
    if isinstance(constraint, Range) and not constraint.low <= value <= constraint.high:
        mend = f"allowed: {constraint.low:_} to {constraint.high:_}"
        raise BoardError(f"{value:_} is out of range", where=_place(file, key), mend=mend)
    if isinstance(constraint, Between) and not constraint.low <= value <= constraint.high:
        mend = f"allowed: {constraint.low:g} to {constraint.high:g}"
        raise BoardError(f"{value} is out of range", where=_place(file, key), mend=mend)
    if isinstance(constraint, Pattern) and not re.fullmatch(constraint.expression, value):
        raise BoardError(
            f"{value!r} is not allowed here", where=_place(file, key), mend=f"it takes {constraint.meaning}"
        )


def _size(value: object, file: str, key: str) -> int:
    size = value if type(value) is int else None
    if isinstance(value, str):
        match = re.fullmatch(r"(\d{1,12}) ?([KMGT]?i?B)", value)
        if match and match[2] in _UNITS:
            size = int(match[1]) * _UNITS[match[2]]
    if size is None or not 0 < size < 2**50:
        raise BoardError(f"{value!r} is not a size", where=_place(file, key), mend=f"it takes {_describe_size()}")
    return size


def _describe(hint: Any) -> str:  # noqa: ANN401
    """What a key takes, in words."""
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is Annotated:
        return _describe_constraint(arguments[1]) or _describe(arguments[0])
    if origin is Literal:
        return "one of " + ", ".join(arguments)
    if origin is tuple:
        return "a list of " + _describe(arguments[0])
    if dataclasses.is_dataclass(hint):
        return "a table with " + ", ".join(f.name for f in dataclasses.fields(hint))
    return _TOML_NAMES.get(hint, str(hint))


def _describe_constraint(constraint: object) -> str:
    if isinstance(constraint, Range):
        return f"an integer from {constraint.low:_} to {constraint.high:_}"
    if isinstance(constraint, Between):
        return f"a number from {constraint.low:g} to {constraint.high:g}"
    if isinstance(constraint, Pattern):
        return constraint.meaning
    return _describe_size() if isinstance(constraint, Size) else ""


def _describe_size() -> str:
    return "a positive number of bytes, as an integer or as text with a unit: 64 KiB, 512 MiB, 8 GiB"


def _wrong(value: object, expected: str, file: str, key: str) -> BoardError:
    found = _TOML_NAMES.get(type(value), type(value).__name__)
    return BoardError(f"found {found}", where=_place(file, key), mend=f"it takes {expected}")


def _nearest(name: str, known: list[str]) -> str:
    return nearest(name, known) + f"allowed: {', '.join(known)}"


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _place(file: str, key: str) -> str:
    return f"{file}: {key}" if key else file
