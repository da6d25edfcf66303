"""What the tests of the whole deployment share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.cache import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def with_engines() -> Callable[[Path], Path]:
    """Makes a cache folder that is empty but for the engines, which take a minute to compile."""

    def prepare(cache: Path) -> Path:
        cache.mkdir(parents=True, exist_ok=True)
        for name in ("engines", "runtime"):
            shared = cache_folder() / name
            shared.mkdir(parents=True, exist_ok=True)
            (cache / name).symlink_to(shared)
        return cache

    return prepare
