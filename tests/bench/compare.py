"""Everything side by side: ours and the rivals, in instructions, wall-clock ratio, memory and file size."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.console import Stages
from edge.toolchain import build_engine
from tests.bench.contest import LineRunner, OurRunner, Runner, Standing, contest
from tests.bench.models import UNetShape
from tests.bench.ours import Prepared, Setting, prepare
from tests.bench.rivals import executorch, ncnn, onnx

OURS = {
    "ours": Setting(),
    "ours, half the passes": Setting(steps=13, passes=0.5),
    "ours, residual plane": Setting(residual=True),
}
"""The ways we run: the uniform plan, which is the measure; blocks reused; weights of 16 bits, one residual pass in four
steps, at the anchor.
"""


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


def wanted(name: str, only: Sequence[str]) -> bool:
    """Whether a row is asked for: every word of one of ``only`` is in its name; without any, all are."""
    return not only or any(all(word in name.lower() for word in words.lower().split()) for words in only)


def ours(model: str, only: Sequence[str], stages: Stages) -> dict[str, Prepared]:
    """Our ways to run a model, lowered; the first one always."""
    found = {}
    for name, setting in OURS.items():
        if name == "ours" or wanted(name, only):
            with stages.stage(f"lower {name}"):
                found[name] = prepare(model, setting)
    return found


def entries(model: str, shape: UNetShape, only: Sequence[str], stages: Stages) -> tuple[list[Entry], list[Missing]]:
    """The rivals of a model, converted; those that fail to convert are told with their reason."""
    found: list[Entry] = []
    missing = [Missing("ncnn int8", ncnn.NO_INT8)] if wanted("ncnn int8", only) else []
    makers: list[tuple[str, Callable[[], Entry]]] = [
        *((f"XNNPACK {kind}", lambda kind=kind: _xnnpack(model, kind)) for kind in executorch.KINDS),
        ("ONNX Runtime fp32", lambda: _onnx(model, "fp32", shape)),
        ("ONNX Runtime int8", lambda: _onnx(model, "int8", shape)),
        ("ncnn fp32", lambda: _ncnn(model, shape)),
    ]
    for name, make in makers:
        if not wanted(name, only):
            continue
        with stages.stage(f"convert for {name}"):
            try:
                found.append(make())
            except Exception as error:  # noqa: BLE001 - whatever a converter raises is the reason that is shown
                reason = (str(error).strip().splitlines() or [""])[0][:160]
                missing.append(Missing(name, f"{type(error).__name__}: {reason}"))
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


@dataclass(frozen=True)
class Wall:
    """One contest: threads, and how everybody did; the first is the measure."""

    threads: int
    standings: list[Standing]
    missing: list[Missing]


def wall(mine: Mapping[str, Prepared], rivals: Sequence[Entry], threads: int, rounds: int) -> Wall:
    """Our engine and the rivals on this machine."""
    runners: list[Runner] = [OurRunner(name, prepared, threads) for name, prepared in mine.items()]
    missing = []
    for entry in rivals:
        assert entry.words is not None
        try:
            runners.append(LineRunner(entry.name, entry.words(threads)))
        except Exception as error:  # noqa: BLE001 - the reason is shown
            missing.append(Missing(entry.name, str(error)))
    return Wall(threads, contest(runners, rounds), missing)


def scaling(prepared: Prepared, threads: Sequence[int], rounds: int) -> list[Standing]:
    """Our engine against itself with other thread counts; the first one is the measure."""
    return contest([OurRunner(f"{number} threads", prepared, number) for number in threads], rounds)


def bundle_bytes(prepared: Prepared) -> int:
    """What goes to a device: the program, the engine and its libraries."""
    build = build_engine("aarch64")
    return prepared.program.stat().st_size + sum(file.path.stat().st_size for file in build.files)
