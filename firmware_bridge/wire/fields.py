"""What a message's field may hold: small checks that name the violation, used in both directions.

A check takes the plain CBOR value and returns the value the dataclass holds, or raises ValueError with the reason.
The message codec turns that into a local or a remote protocol error, by whose value it was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from firmware_bridge import limits


class Check(Protocol):
    """One field's rule."""

    def __call__(self, value: object) -> object:
        """The value to hold, or ValueError."""


@dataclass(frozen=True)
class UInt:
    """An integer in [minimum, maximum]."""

    maximum: int
    minimum: int = 0

    def __call__(self, value: object) -> int:
        """The integer itself, an enum's member as its number."""
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"an integer is wanted, not {type(value).__name__}")  # noqa: TRY004  a check's one error
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is outside {self.minimum}..{self.maximum}")
        return int(value)


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def __call__(self, value: object) -> bool:
        """The truth value itself."""
        if type(value) is not bool:
            raise ValueError(f"true or false is wanted, not {type(value).__name__}")
        return value


@dataclass(frozen=True)
class Text:
    """A string of at most `limit` characters that matches `pattern` whole, where one is given."""

    limit: int
    pattern: str = ""

    def __call__(self, value: object) -> str:
        """The text itself."""
        if type(value) is not str:
            raise ValueError(f"text is wanted, not {type(value).__name__}")
        if len(value) > self.limit:
            raise ValueError(f"{len(value)} characters are more than {self.limit}")
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise ValueError(f"{value!r} does not match {self.pattern}")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("the text holds half of a surrogate pair") from None
        return value


@dataclass(frozen=True)
class Blob:
    """A byte string of `minimum` to `limit` bytes."""

    limit: int
    minimum: int = 0

    def __call__(self, value: object) -> bytes:
        """The bytes themselves."""
        if type(value) is not bytes:
            raise ValueError(f"bytes are wanted, not {type(value).__name__}")
        if not self.minimum <= len(value) <= self.limit:
            raise ValueError(f"{len(value)} bytes are outside {self.minimum}..{self.limit}")
        return value


@dataclass(frozen=True)
class Maybe:
    """Null, or what `inner` allows."""

    inner: Check

    def __call__(self, value: object) -> object:
        """None, or what `inner` makes of the value."""
        return None if value is None else self.inner(value)


@dataclass(frozen=True)
class Many:
    """A list of at most `limit` items that each pass `inner`; held as a tuple."""

    inner: Check
    limit: int

    def __call__(self, value: object) -> tuple[object, ...]:
        """The items as a tuple."""
        if type(value) not in {list, tuple}:
            raise ValueError(f"a list is wanted, not {type(value).__name__}")
        assert isinstance(value, list | tuple)
        if len(value) > self.limit:
            raise ValueError(f"{len(value)} entries are more than {self.limit}")
        return tuple(self.inner(item) for item in value)


@dataclass(frozen=True)
class Tree:
    """A map from text to plain values (null, bool, int, float, text, bytes, lists and maps of these), `depth` deep.

    Args:
        depth: how many maps and lists may lie in each other; 1 is a flat map.
        items: entries of each map or list.
    """

    depth: int
    items: int

    def __call__(self, value: object) -> dict[str, object]:
        """The map, its tuples turned into lists."""
        if type(value) is not dict:
            raise ValueError(f"a map is wanted, not {type(value).__name__}")
        checked = self._plain(value, self.depth)
        assert isinstance(checked, dict)
        return checked

    def _plain(self, value: object, depth: int) -> object:
        if value is None or type(value) in {bool, float, bytes}:
            return value
        if isinstance(value, int):
            return UInt(limits.MAX_COUNT, -limits.MAX_COUNT - 1)(value)
        if type(value) is str:
            return Text(limits.MAX_TEXT)(value)
        if type(value) not in {dict, list, tuple}:
            raise ValueError(f"{type(value).__name__} is not a plain value")
        assert isinstance(value, dict | list | tuple)
        if depth == 0:
            raise ValueError("the value is nested too deep")
        if len(value) > self.items:
            raise ValueError(f"{len(value)} entries are more than {self.items}")
        if isinstance(value, dict):
            key = Text(limits.MAX_NAME)
            return {key(name): self._plain(item, depth - 1) for name, item in value.items()}
        return [self._plain(item, depth - 1) for item in value]
