"""Configurations as JSON: nested frozen dataclasses, each tagged with its type where there is a choice of types."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from calib.errors import CalibrationError

TAG = "method"

T = TypeVar("T")


def to_document(config: object) -> dict[str, Any]:
    """A dataclass as JSON values; a nested one names its type under ``method``."""
    assert dataclasses.is_dataclass(config)
    document: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        nested = dataclasses.is_dataclass(value)
        document[field.name] = {TAG: type(value).__name__, **to_document(value)} if nested else value
    return document


def from_document(kind: type[T], document: object, *, where: str) -> T:
    """Read ``to_document``'s values back; a field that is missing has its default.

    Args:
        kind: the dataclass.
        document: a JSON object.
        where: for errors.

    Raises:
        CalibrationError: unknown fields or types, or values that the dataclass refuses.
    """
    if not isinstance(document, Mapping):
        raise CalibrationError(f"{kind.__name__} is {document!r}, not an object", where=where)
    hints = typing.get_type_hints(kind)
    known = {field.name: hints[field.name] for field in dataclasses.fields(cast("Any", kind))}
    unknown = sorted(set(document) - set(known))
    if unknown:
        raise CalibrationError(f"{kind.__name__} has no {', '.join(unknown)}", where=where)
    try:
        return kind(**{name: _read(known[name], value, f"{where}, {name}") for name, value in document.items()})
    except TypeError as error:
        raise CalibrationError(f"{kind.__name__}: {error}", where=where) from error


def _read(hint: Any, value: object, where: str) -> object:  # noqa: ANN401 - a type hint is anything
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    kinds: tuple[Any, ...] = typing.get_args(hint) if union else (hint,)
    choices = [kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    if not choices or value is None:
        return value
    if not isinstance(value, Mapping) or TAG not in value:
        raise CalibrationError(f"{value!r} names no method", where=where)
    for choice in choices:
        if choice.__name__ == value[TAG]:
            return from_document(choice, {key: v for key, v in value.items() if key != TAG}, where=where)
    names = ", ".join(choice.__name__ for choice in choices)
    raise CalibrationError(f"method {value[TAG]!r} is unknown", where=where, mend=f"use one of {names}")
