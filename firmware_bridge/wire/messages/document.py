"""The messages as PROTOCOL.md prints them, made from the dataclasses: the document cannot say something else."""

from __future__ import annotations

import enum
import typing

from firmware_bridge.wire.fields import Blob, Check, Flag, Many, Maybe, Text, Tree, UInt
from firmware_bridge.wire.messages.codec import BY_CODE, CHECKS
from firmware_bridge.wire.messages.host import HostMessage


def table() -> str:
    """A row a message: its number, name, sender, fields, and what its docstring says first."""
    rows = ["| m | name | from | fields | meaning |", "|---|---|---|---|---|"]
    for code, kind in sorted(BY_CODE.items()):
        sender = "host" if kind in typing.get_args(HostMessage) else "device"
        fields = ", ".join(f"{name} {words(check)}" for name, check in CHECKS[kind].items())
        meaning = " ".join((kind.__doc__ or "").partition("\n\n")[0].split())
        meaning = meaning.removeprefix("Host: ").removeprefix("Device: ")
        rows.append(f"| {code} | {kind.__name__} | {sender} | {fields} | {meaning} |")
    return "\n".join(rows)


def numbers(kind: type[enum.IntEnum]) -> str:
    """The members of an enumeration, with their numbers."""
    return ", ".join(f"{each.value} {each.name.lower().replace('_', ' ')}" for each in kind)


def words(check: Check) -> str:  # noqa: PLR0911  one a type
    """A field's type, short."""
    match check:
        case UInt(maximum, minimum):
            usual = {0xFFFF: "u16", 2**32 - 1: "u32", 2**63 - 1: "u63", 2**31 - 1: "u31"}.get(maximum, "")
            return usual if usual and not minimum else f"{minimum}..{maximum}"
        case Text(limit, pattern):
            return f"text {limit}" + (f" `{pattern}`" if pattern else "")
        case Blob(limit, minimum):
            return f"{limit} bytes" if limit == minimum else f"{minimum}..{limit} bytes"
        case Maybe(inner):
            return f"{words(inner)} or null"
        case Many(inner, limit):
            return f"[{words(inner)}] {limit}"
        case Tree(depth, items):
            return f"map {items}" if depth == 1 else f"tree {items}, {depth} deep"
        case Flag():
            return "bool"
        case _:
            raise TypeError(f"a field of an unknown type: {check!r}")
