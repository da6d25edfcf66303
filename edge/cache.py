"""Where calibrations, lowered programs, engines and virtual boards are kept between runs."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final

import platformdirs

CACHE_VARIABLE: Final = "EDGE_CACHE"
_KEPT: Final = 12


def cache_folder() -> Path:
    """``$EDGE_CACHE``, or the user's cache folder of the kit."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path(platformdirs.user_cache_dir("modiff-edge"))


def content_key(*parts: str) -> str:
    """A file name that changes with any of the parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[: 2 * _KEPT]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as part:
        part.write(data)
        part.flush()
        os.fsync(part.fileno())
    Path(part.name).replace(path)
