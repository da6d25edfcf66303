"""Everything side by side: ours and the rivals, in instructions, wall-clock ratio, memory and file size."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.device.engine_process import EngineProcess
from edge.toolchain import build_engine
from tests.bench.contest import LineRunner, OurRunner, Runner, Standing, contest
from tests.bench.instructions import Counts, counter
from tests.bench.models import UNetShape
from tests.bench.ours import Prepared, command
from tests.bench.output import say
from tests.bench.program import read_calls
from tests.bench.rivals import executorch, ncnn, onnx
from tests.bench.symbols import operator_mark

OURS = "ours"


@dataclass(frozen=True)
class Entry:
    """A way to run the network.

    Attributes:
        name: in tables.
        file_bytes: of its program and weights.
        words: starts its runner on this machine, given the threads; None for ours.
        program: an ExecuTorch program whose instructions can be counted, and its method; None elsewhere.
    """

    name: str
    file_bytes: int
    words: Callable[[int], list[str]] | None
    program: Path | None = None


@dataclass(frozen=True)
class Missing:
    """A rival that cannot be measured here, and why."""

    name: str
    reason: str


def entries(model: str, shape: UNetShape) -> tuple[list[Entry], list[Missing]]:
    """The rivals of a model, converted; those that fail to convert are told with their reason."""
    found: list[Entry] = []
    missing = [Missing("ncnn int8", ncnn.NO_INT8)]
    makers: list[tuple[str, Callable[[], Entry]]] = [
        *((f"XNNPACK {kind}", lambda kind=kind: _xnnpack(model, kind)) for kind in executorch.KINDS),
        ("ONNX Runtime fp32", lambda: _onnx(model, "fp32", shape)),
        ("ONNX Runtime int8", lambda: _onnx(model, "int8", shape)),
        ("ncnn fp32", lambda: _ncnn(model, shape)),
    ]
    for name, make in makers:
        say(f"converting for {name}")
        try:
            found.append(make())
        except Exception as error:  # noqa: BLE001 - whatever a converter raises is the reason that is shown
            missing.append(Missing(name, f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160]}"))
    return found, missing


def _xnnpack(model: str, kind: executorch.Kind) -> Entry:
    path = executorch.lower(model, kind)
    runner = executorch.build_runner("host")
    return Entry(f"XNNPACK {kind}", path.stat().st_size, lambda threads: [str(runner), str(path), str(threads)], path)


def _onnx(model: str, kind: onnx.Kind, shape: UNetShape) -> Entry:
    path = onnx.convert(model, kind)
    return Entry(
        f"ONNX Runtime {kind}", path.stat().st_size, lambda threads: _serve(f"onnx-{kind}", path, threads, shape)
    )


def _ncnn(model: str, shape: UNetShape) -> Entry:
    folder = ncnn.convert(model)
    size = (folder / "net.ncnn.bin").stat().st_size + (folder / "net.ncnn.param").stat().st_size
    return Entry("ncnn fp32", size, lambda threads: _serve("ncnn-fp32", folder, threads, shape))


def _serve(kind: str, path: Path, threads: int, shape: UNetShape) -> list[str]:
    words = [sys.executable, "-m", "tests.bench.rivals.serve", kind, str(path), str(threads)]
    return [*words, str(shape.channels), str(shape.size)]


def count_rival(program: Path, cpu: str, *, runs: int = 2) -> Counts:
    """Instructions of one run of an ExecuTorch program, from its first operator call to that of the next run.

    Args:
        program: with method ``forward``.
        cpu: the core to emulate.
        runs: 2; 1 halves the time and counts the program's end in (well under 1 M instructions).
    """
    runner, library = executorch.build_runner("aarch64"), executorch.runner_library("aarch64")
    calls = len(read_calls(program, "forward"))
    with counter(cpu, operator_mark(library)) as counted:
        line_runner = LineRunner(program.name, [*counted.prefix, str(runner), str(program), "1"])
        for _ in range(runs):
            line_runner.run()
        line_runner.finish()
        recording = counted.read()
    end = recording.marks[calls] if runs > 1 else recording.total
    return end - recording.marks[0]


def count_ours(prepared: Prepared, cpu: str, isa: str = "auto", step: int = 1) -> Counts:
    """Instructions of one modulated step, from its first operator call to that of the next step."""
    build = build_engine("aarch64", symbols=True)
    calls = len(read_calls(prepared.program, "step"))
    with counter(cpu, operator_mark(build.folder / "libexecutorch.so")) as counted:
        with EngineProcess(command(build, prepared, counted.prefix, isa=isa)) as engine:
            engine.begin(0, 1, 0, None)
            for _ in range(step + 2):
                engine.step(0)
        recording = counted.read()
    return recording.marks[(step + 1) * calls] - recording.marks[step * calls]


@dataclass(frozen=True)
class Wall:
    """One contest: threads, and how everybody did; the first is the measure."""

    threads: int
    standings: list[Standing]
    missing: list[Missing]


def wall(prepared: Prepared, rivals: Sequence[Entry], threads: int, rounds: int) -> Wall:
    """Our engine and the rivals on this machine."""
    runners: list[Runner] = [OurRunner(OURS, prepared, threads)]
    missing = []
    for entry in rivals:
        assert entry.words is not None
        try:
            runners.append(LineRunner(entry.name, entry.words(threads)))
        except Exception as error:  # noqa: BLE001 - the reason is shown
            missing.append(Missing(entry.name, str(error)))
    return Wall(threads, contest(runners, rounds), missing)


def bundle_bytes(prepared: Prepared) -> int:
    """What goes to a device: the program, the engine and its libraries."""
    build = build_engine("aarch64")
    return prepared.program.stat().st_size + sum(file.path.stat().st_size for file in build.files)
