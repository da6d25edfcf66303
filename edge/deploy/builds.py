"""An engine that is built while something else is done."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from edge.errors import ToolchainError
from edge.toolchain import EngineBuild, build_engine

if TYPE_CHECKING:
    from pathlib import Path

    from edge.console import Report


class BackgroundBuild:
    """Builds the engine of this machine from construction on; ``result`` waits for it.

    Left by an exception, it stops at the next file.
    """

    def __init__(self, cache: Path) -> None:
        self._stop = threading.Event()
        self._report: Report | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="engine build")
        self._build = self._pool.submit(build_engine, "host", cache, self._progress)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()

    @property
    def done(self) -> bool:
        """Whether ``result`` returns, or raises, at once."""
        return self._build.done()

    def result(self, report: Report) -> EngineBuild:
        """The engine, when it is there; progress goes to ``report`` from now on.

        Raises:
            ToolchainError: it cannot be built.
        """
        self._report = report
        return self._build.result()

    def _progress(self, done: int, of: int, _: str) -> None:
        if self._stop.is_set():
            raise ToolchainError("the build is not wanted any more")
        if self._report is not None:
            self._report(done, of)
