"""Counted instructions of a step, ours and the rivals'; what was counted once is kept, because it cannot change.

A step of ours is a modulated one: from its first operator call to that of the next step. A rival's is its second run:
the first one also sets things up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from edge.cache import cache_folder, content_key, sources_key
from edge.device.engine_process import EngineProcess
from edge.toolchain import build_engine
from tests.bench.contest import LineRunner
from tests.bench.instructions import PLUGIN, Counts, counter
from tests.bench.ours import Prepared, command
from tests.bench.program import read_calls
from tests.bench.rivals import executorch
from tests.bench.symbols import operator_mark


def count_rival(program: Path, cpu: str) -> Counts:
    """Instructions of the second run of an ExecuTorch program, to the end of the process (well under 1 M too many).

    Args:
        program: with method ``forward``.
        cpu: the core to emulate.
    """
    runner, library = executorch.build_runner("aarch64"), executorch.runner_library("aarch64")

    def make() -> Counts:
        calls = len(read_calls(program, "forward"))
        with counter(cpu, operator_mark(library)) as counted:
            line_runner = LineRunner(program.name, [*counted.prefix, str(runner), str(program), "1"])
            for _ in range(2):
                line_runner.run()
            line_runner.finish()
            recording = counted.read()
        return recording.total - recording.marks[calls]

    return kept(make, _digest(program), runner.name, cpu)


def count_ours(prepared: Prepared, cpu: str, isa: str = "auto") -> Counts:
    """Instructions of a step of ours: the mean over all steps of a job after the anchor.

    Args:
        prepared: the model.
        cpu: the core to emulate.
        isa: which of our kernels.
    """
    build = build_engine("aarch64", symbols=True)

    def make() -> Counts:
        calls = len(read_calls(prepared.program, "step"))
        with counter(cpu, operator_mark(build.folder / "libexecutorch.so")) as counted:
            with EngineProcess(command(build, prepared, counted.prefix, isa=isa)) as engine:
                engine.begin(0, 1, 0, None)
                while engine.step(0).left:
                    pass
                engine.begin(0, 1, 0, None)
                engine.step(0)
            marks = counted.read().marks
        return (marks[prepared.steps * calls] - marks[calls]).divided(prepared.steps - 1)

    return kept(make, prepared.program_id, build.folder.name, cpu, isa)


def kept(make: Callable[[], Counts], *parts: str) -> Counts:
    """What ``make`` counts, from the cache if it was counted before: the same programs, core and plugin."""
    key = content_key(*parts, sources_key([*PLUGIN.glob("*.[ch]"), Path(__file__)]))
    path = cache_folder() / "bench" / "counts" / f"{key}.json"
    if path.is_file():
        return Counts(json.loads(path.read_text(encoding="utf-8")))
    counts = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".part")
    fresh.write_text(json.dumps(counts), encoding="utf-8")
    fresh.rename(path)
    return counts


@lru_cache(maxsize=32)
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
