"""What the fields of messages hold: each type with the check that both directions apply."""

from __future__ import annotations

from typing import Annotated

from firmware_bridge import limits
from firmware_bridge.wire.fields import Blob, Text, Tree, UInt

Request = Annotated[int, UInt(limits.MAX_REQUEST)]
Code = Annotated[int, UInt(0xFFFF)]
Count = Annotated[int, UInt(limits.MAX_COUNT)]
Step = Annotated[int, UInt(limits.MAX_REQUEST)]
Name = Annotated[str, Text(limits.MAX_NAME)]
Words = Annotated[str, Text(limits.MAX_TEXT)]
JobId = Annotated[str, Text(64, r"[A-Za-z0-9_.-]{1,64}")]
Digest = Annotated[bytes, Blob(32, 32)]
Chunk = Annotated[bytes, Blob(limits.MAX_MESSAGE - 256, 1)]
BlobOffset = Annotated[int, UInt(limits.MAX_BLOB)]
PayloadSize = Annotated[int, UInt(limits.MAX_PAYLOAD)]
Flat = Annotated[dict[str, object], Tree(1, limits.MAX_PARAMS)]
Meta = Annotated[dict[str, object], Tree(limits.MAX_DEPTH, limits.MAX_ITEMS)]
