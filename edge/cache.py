"""Where calibrations, bundles, engines and virtual boards are kept between runs, and how a run finds them again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs

if TYPE_CHECKING:
    from collections.abc import Iterable

CACHE_VARIABLE: Final = "EDGE_CACHE"
KEY_DIGITS: Final = 24


def cache_folder() -> Path:
    """``$EDGE_CACHE``, or the user's cache folder of the kit."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path(platformdirs.user_cache_dir("modiff-edge"))


def content_key(*parts: str) -> str:
    """A folder name that changes with any of the parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:KEY_DIGITS]


def sources_key(files: Iterable[Path]) -> str:
    """The same over the files' names and content: what our own code made is made anew when that code changes."""
    return content_key(*(f"{path.name}\0{path.read_text(encoding='utf-8')}" for path in sorted(files)))
