"""One record a line: CRC-32 of the rest in 8 hex digits, a space, JSON. What is torn or damaged is told apart."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

_HEAD = 9


def encode(record: Mapping[str, object]) -> bytes:
    """The record as a line."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def decode(line: bytes) -> dict[str, Any] | None:
    """The record in a line, or None for one that is damaged or not whole."""
    if len(line) <= _HEAD or not line.endswith(b"\n"):
        return None
    text = line[_HEAD:-1]
    if line[:_HEAD] != b"%08x " % zlib.crc32(text):
        return None
    record: dict[str, Any] = json.loads(text)
    return record
