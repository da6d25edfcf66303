"""Runners side by side: wall-clock ratios from interleaved rounds, and peak memory.

A runner is a process that runs the network once for each line it is sent and answers with the nanoseconds it took:
``rivals/runner.cpp``, ``rivals/serve.py``, or our engine behind the same interface. Every round runs each runner
once, in turn, so that what else the machine does falls on all of them; a ratio is taken within a round, and the median
over the rounds is what is told.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge.device.engine_process import EngineProcess
from edge.toolchain import build_engine
from tests.bench.instructions import BenchError
from tests.bench.ours import Prepared, command

START_SECONDS = 300.0
SETTLE_SECONDS = 0.1
"""Before each run: the threads of the runner before it may still spin, and the same one always comes before."""


class Runner(Protocol):
    """What takes part."""

    name: str
    start_seconds: float
    """From starting the process to its being ready for the first run."""

    def run(self) -> int:
        """Run the network once; nanoseconds."""

    def finish(self) -> int:
        """End the process; its peak resident set in bytes."""


class LineRunner:
    """A process that speaks lines: "ready", then nanoseconds for each empty line, at the end its peak in KiB."""

    def __init__(self, name: str, words: Sequence[str]) -> None:
        self.name = name
        started = time.monotonic()
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
        )
        if self._line() != "ready":
            self._process.kill()
            raise BenchError("the runner did not start", where=name)
        self.start_seconds = time.monotonic() - started

    def run(self) -> int:
        """Run the network once; nanoseconds."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._line())

    def finish(self) -> int:
        """End the process; its peak resident set in bytes."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        peak = int(self._line()) * 1024
        self._process.wait(60)
        return peak

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            self._process.kill()
            raise BenchError(f"the runner died with status {self._process.wait(60)}", where=self.name)
        return line


class OurRunner:
    """Our engine. A run is one modulated step, or the mean of a whole job's where the plan differs from step to step;
    the first step of each job, the anchor, is run and not told.
    """

    def __init__(self, name: str, prepared: Prepared, threads: int) -> None:
        self.name = name
        self._prepared = prepared
        self._engine, self.start_seconds = start_ours(prepared, threads)
        self._left = 0

    def run(self) -> int:
        """One modulated step, or a job's mean; nanoseconds."""
        if self._left == 0:
            self._engine.begin(0, 1, 0, None)
            self._left = self._engine.step(0).left
        taken = []
        for _ in range(self._left if self._prepared.varies else 1):
            report = self._engine.step(0)
            self._left = report.left
            taken.append(report.nanoseconds)
        return sum(taken) // len(taken)

    def finish(self) -> int:
        """End the process; its peak resident set in bytes."""
        # Not what the engine says: getrusage counts the peak of the process that it was forked from, too.
        status = Path(f"/proc/{self._engine.pid}/status").read_text(encoding="utf-8")
        self._engine.close()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def start_ours(prepared: Prepared, threads: int) -> tuple[EngineProcess, float]:
    """Our engine on this machine, and the seconds from starting the process to its first answer."""
    build = build_engine("host")
    started = time.monotonic()
    engine = EngineProcess(command(build, prepared, threads=threads))
    return engine, time.monotonic() - started


@dataclass(frozen=True)
class Start:
    """How our engine starts, medians of seconds from starting the process; and what of the program stays in memory.

    Attributes:
        ready: the program is loaded and checked.
        begun: the first job has its state: its first step begins.
        stepped: its first step, the anchor, has ended.
        program_bytes: of the file.
        resident_bytes: of them, in memory after the second step; weights of the residual plane are given back.
    """

    ready: float
    begun: float
    stepped: float
    program_bytes: int
    resident_bytes: int


def measure_start(prepared: Prepared, threads: int, times: int = 5) -> Start:
    """Start our engine several times, natively, with the files in the system's cache."""
    rows = []
    resident = 0
    for _ in range(times):
        started = time.monotonic()
        engine, ready = start_ours(prepared, threads)
        with engine:
            engine.begin(0, 1, 0, None)
            begun = time.monotonic() - started
            engine.step(0)
            rows.append((ready, begun, time.monotonic() - started))
            engine.step(0)
            resident = resident_bytes(engine.pid, prepared.program)
    ready, begun, stepped = (statistics.median(column) for column in zip(*rows, strict=True))
    return Start(ready, begun, stepped, prepared.program.stat().st_size, resident)


def resident_bytes(pid: int, file: Path) -> int:
    """Bytes of a file's mappings that are in memory."""
    inside, total = False, 0
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split()[0] and not line.split()[0].endswith(":"):
            inside = line.endswith(str(file.resolve()))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@dataclass(frozen=True)
class Standing:
    """How one runner did.

    Attributes:
        name: of the runner.
        milliseconds: median of its runs.
        ratio: median of (its time / the first runner's time) over the rounds.
        spread: quartiles of that ratio.
        start_seconds: until ready.
        peak_bytes: resident.
    """

    name: str
    milliseconds: float
    ratio: float
    spread: tuple[float, float]
    start_seconds: float
    peak_bytes: int


def contest(runners: Sequence[Runner], rounds: int) -> list[Standing]:
    """Run every runner once a round, the order turning; the first one is the measure of the others.

    Args:
        runners: already started.
        rounds: at least 2; one more is run first to warm up.
    """
    times: list[list[int]] = [[] for _ in runners]
    for index in range(rounds + 1):
        order = [(index + offset) % len(runners) for offset in range(len(runners))]
        for position in order:
            time.sleep(SETTLE_SECONDS)
            taken = runners[position].run()
            if index:
                times[position].append(taken)
    standings = []
    for runner, taken_times in zip(runners, times, strict=True):
        ratios = [mine / first for mine, first in zip(taken_times, times[0], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        milliseconds = statistics.median(taken_times) / 1e6
        standings.append(
            Standing(runner.name, milliseconds, middle, (low, high), runner.start_seconds, runner.finish())
        )
    return standings
