"""Where a step's instructions go: by operator of the program, and by function of the machine code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.instructions import BenchError, Counts, Recording
from tests.bench.program import Call
from tests.bench.symbols import function_at


@dataclass(frozen=True)
class Share:
    """What one operator, or one function, executed.

    Attributes:
        name: of it.
        calls: in a step; 0 where that is unknown.
        counts: instructions by class.
    """

    name: str
    calls: int
    counts: Counts


def per_call(recording: Recording, calls: Sequence[Call], step: int) -> list[tuple[Call, Counts]]:
    """Instructions of each operator call of one step.

    Args:
        recording: marked at each call, of at least ``step + 2`` steps.
        calls: of one step.
        step: which, from 0.

    Raises:
        BenchError: the run is of another program.
    """
    stretches = recording.stretches()
    if len(stretches) % len(calls) != 0 or len(stretches) < (step + 1) * len(calls):
        raise BenchError(f"{len(stretches)} marks do not fit {len(calls)} calls a step")
    of_step = stretches[step * len(calls) : (step + 1) * len(calls)]
    return list(zip(calls, of_step, strict=True))


def by_operator(pairs: Iterable[tuple[Call, Counts]]) -> list[Share]:
    """Sums over the calls of each operator, largest first."""
    sums: dict[str, Counts] = defaultdict(Counts)
    numbers: dict[str, int] = defaultdict(int)
    for call, counts in pairs:
        sums[call.operator] = sums[call.operator].plus(counts)
        numbers[call.operator] += 1
    shares = [Share(name, numbers[name], counts) for name, counts in sums.items()]
    return sorted(shares, key=lambda share: -share.counts.total)


def by_function(long: Recording, short: Recording) -> list[Share]:
    """Instructions by function, of what ``long`` ran beyond ``short``, largest first.

    Functions are found where the files keep their names: build with symbols.
    """
    sums: dict[str, Counts] = defaultdict(Counts)
    for recording, sign in ((long, 1), (short, -1)):
        for block in recording.blocks:
            path = Path(block.path)
            found = function_at(path, block.offset) if path.is_file() else None
            name = found or f"({path.name})"
            sums[name] = sums[name].plus(block.executed, sign)
    shares = [Share(name, 0, counts) for name, counts in sums.items() if counts.total]
    return sorted(shares, key=lambda share: -share.counts.total)


def rows(shares: Sequence[Share], most: int = 40) -> list[list[str]]:
    """Table rows: name, calls, millions of instructions, share, then the classes that matter."""
    total = sum(share.counts.total for share in shares)
    table = []
    for share in shares[:most]:
        counts = share.counts
        shown = [f"{counts.get(name, 0) / 1e6:.2f}" for name in CLASS_COLUMNS]
        calls = str(share.calls) if share.calls else ""
        table.append([share.name, calls, f"{counts.total / 1e6:.2f}", f"{100 * counts.total / total:.1f} %", *shown])
    return table


CLASS_COLUMNS = ("sdot", "smull", "fmla", "vector", "load", "store", "integer", "branch")
COLUMNS = ("", "calls", "M instr", "share", *CLASS_COLUMNS)
