"""The protocol's version number, on its own so that packets and messages can both name it."""

from __future__ import annotations

from typing import Final

PROTOCOL: Final = 3
"""The protocol's version: packet header and messages together. Peers with different numbers do not talk."""
