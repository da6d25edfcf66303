"""The long measurements, run and shown: what ``compare``, ``fit``, ``roofline`` and ``growth`` do."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from boards import Board, Cost, load_board
from edge.console import Stages
from tests.bench import compare, contest, cost, growth, output, planner, roofline
from tests.bench.counted import count_ours, count_rival
from tests.bench.instructions import MAC_CLASSES, X86, BenchError, Counts
from tests.bench.models import UNetShape, model_named
from tests.bench.ours import Prepared, prepare
from tests.bench.program import read_calls

_CLASSES = ("sdot", "smull", "fmla", "fmla16", "vector", "load", "store")


def compare_all(
    model: str, cpu: str, threads: Sequence[int], rounds: int, only: Sequence[str], *, count: bool
) -> dict[str, Any]:
    """Convert, run and count everything that ``only`` asks for; show tables; return them as a document.

    What was converted or counted once is taken from the cache, so a run that was cut off goes on where it stopped.
    """
    stages = Stages()
    mine = compare.ours(model, only, stages)
    channels, size, _ = model_named(model).sample_shape
    rivals, missing = compare.entries(model, UNetShape(size=size, channels=channels), only, stages)
    counted: dict[str, Counts] = {}
    if count:
        counted, uncounted = _count_all(mine, rivals, cpu, stages)
        missing += uncounted
        _show_counts(f"{model}: instructions a step, {cpu}, 1 thread", counted)
    walls = []
    for number in threads:
        with stages.stage(f"contest, {number} threads, {rounds} rounds"):
            walls.append(compare.wall(mine, rivals, number, rounds))
        _show_wall(model, walls[-1])
    scaled = []
    if len(threads) > 1:
        with stages.stage("our engine with each number of threads"):
            scaled = compare.scaling(mine["ours"], threads, rounds)
        _show_scaling(model, scaled)
    with stages.stage("start our engine"):
        starts = {name: contest.measure_start(prepared, max(threads)) for name, prepared in mine.items()}
    _show_starts(f"{model}: start of our engine, {max(threads)} threads", starts)
    sizes = _sizes(mine, rivals)
    _show_sizes(sizes)
    missing += [each for wall in walls for each in wall.missing]
    for each in missing:
        output.say(f"not measured: {each.name}: {each.reason}")
    instructions = {name: {**counts, "total": counts.total} for name, counts in counted.items()}
    document = {
        "model": model,
        "cpu": cpu,
        "instructions": instructions,
        "wall": walls,
        "starts": starts,
        "threads": scaled,
    }
    return {**document, "bytes": sizes, "missing": missing, "seconds": stages.seconds}


def _count_all(
    mine: Mapping[str, Prepared], rivals: Sequence[compare.Entry], cpu: str, stages: Stages
) -> tuple[dict[str, Counts], list[compare.Missing]]:
    counted = {}
    for name, prepared in mine.items():
        with stages.stage(f"count {name}"):
            counted[name] = count_ours(prepared, cpu)
    missing = []
    for rival in rivals:
        if rival.program is None:
            missing.append(compare.Missing(f"{rival.name} instructions", "its wheel for aarch64 needs a Python there"))
            continue
        with stages.stage(f"count {rival.name}"):
            try:
                counted[rival.name] = count_rival(rival.program, cpu)
            except BenchError as error:
                missing.append(compare.Missing(f"{rival.name} instructions", str(error)))
    return counted, missing


def _sizes(mine: Mapping[str, Prepared], rivals: Sequence[compare.Entry]) -> dict[str, dict[str, int]]:
    """Bytes by row: of the program's file; of ours also the state, the activations and the bundle."""
    found = {}
    for name, prepared in mine.items():
        found[name] = {
            "file": prepared.program.stat().st_size,
            "state": prepared.state_bytes,
            "activations": prepared.activation_bytes,
            "bundle": compare.bundle_bytes(prepared),
        }
    return found | {rival.name: {"file": rival.file_bytes} for rival in rivals}


def _show_sizes(sizes: dict[str, dict[str, int]]) -> None:
    kinds = ("file", "state", "activations", "bundle")
    rows = [[name, *(output.mebibytes(each[k]) if k in each else "" for k in kinds)] for name, each in sizes.items()]
    output.show("sizes", ["", *kinds], rows)


def _show_starts(title: str, starts: dict[str, contest.Start]) -> None:
    rows = [
        [
            name,
            *(f"{1000 * seconds:.0f} ms" for seconds in (start.ready, start.begun, start.stepped)),
            f"{output.mebibytes(start.resident_bytes)} of {output.mebibytes(start.program_bytes)}",
        ]
        for name, start in starts.items()
    ]
    columns = ["", "ready", "first step begins", "first step done", "program resident"]
    output.show(title, columns, rows)


def _show_counts(title: str, counted: dict[str, Counts]) -> None:
    first = next(iter(counted.values())).total
    rows = []
    for name, counts in counted.items():
        share = 100 * sum(counts.get(kind, 0) for kind in MAC_CLASSES) / counts.total
        numbers = [f"{counts.get(kind, 0) / 1e6:.1f}" for kind in _CLASSES]
        rows.append([name, output.giga(counts.total), f"{counts.total / first:.2f}", f"{share:.0f} %", *numbers])
    output.show(title, ["", "instructions", "of ours", "MAC share", *(f"{kind} M" for kind in _CLASSES)], rows)


def _show_wall(model: str, wall: compare.Wall) -> None:
    rows = [
        [
            s.name,
            f"{s.milliseconds:.1f} ms",
            f"{s.ratio:.2f}",
            f"{s.spread[0]:.2f} - {s.spread[1]:.2f}",
            f"{1000 * s.start_seconds:.0f} ms",
            output.mebibytes(s.peak_bytes),
        ]
        for s in wall.standings
    ]
    columns = ["", "median", "of ours", "quartiles", "start", "peak memory"]
    output.show(f"{model} on this machine, {wall.threads} threads, interleaved rounds", columns, rows)


def _show_scaling(model: str, standings: Sequence[contest.Standing]) -> None:
    rows = [
        [s.name, f"{s.milliseconds:.1f} ms", f"{1 / s.ratio:.2f}", f"{1 / s.spread[1]:.2f} - {1 / s.spread[0]:.2f}"]
        for s in standings
    ]
    output.show(f"{model}, ours: threads, interleaved rounds", ["", "median", "times as fast", "quartiles"], rows)


def show_planned(model: str, steps: int, budget: float, board: str, cpu: str) -> planner.PlannedCount:
    """A step under a plan of the planner."""
    with Stages().stage(f"plan {model} for cost {budget}, lower, count"):
        found = planner.measure(model, steps, budget, board, cpu)
    output.say(f"{model}, plan of cost {found.cost:.2f}: {output.giga(found.counts.total)} instructions a step")
    return found


def fit_board(name: str) -> dict[str, Any]:
    """Measure the grid's layers and the held-out ones, fit, check, show.

    Raises:
        BenchError: the board has no emulator to count with, or the fit predicts unseen layers badly.
    """
    cpu = _core_of(load_board(name))
    fitted_samples = _measure(cost.GRID, cpu)
    found = cost.fit(fitted_samples)
    held_out = _measure(cost.HELD_OUT, cpu)
    _show_cost(name, found)
    checks = _check(found, {"layers fitted": fitted_samples, "layers not seen": held_out})
    cost.require(checks["layers not seen"], name)
    return {"board": name, "cost": found, "checks": checks}


def check_board(name: str) -> dict[str, Any]:
    """Measure the held-out layers and compare them with what the board's file predicts.

    Raises:
        BenchError: the board has no emulator to count with, or its file predicts them badly.
    """
    board = load_board(name)
    checks = _check(board.cost, {"layers not seen": _measure(cost.HELD_OUT, _core_of(board))})
    cost.require(checks["layers not seen"], name)
    return {"board": name, "cost": board.cost, "checks": checks}


def _core_of(board: Board) -> str:
    """What to emulate for a board."""
    if board.emulator is not None:
        return board.emulator.cpu
    if board.cpu.arch == X86:
        return X86
    raise BenchError("the board has no emulator to count with", where=f"board {board.name}")


def _measure(models: Sequence[str], cpu: str) -> list[cost.Sample]:
    stages = Stages()
    samples = []
    for model in models:
        with stages.stage(f"count {model} on {cpu}"):
            samples += cost.measure(prepare(model), cpu=cpu, isa="auto")
    return samples


def _show_cost(name: str, found: Cost) -> None:
    rows = [[field.name, f"{getattr(found, field.name):.4g}"] for field in dataclasses.fields(found)]
    output.show(f"[cost] of {name}, instructions", ["", "fitted"], rows)


def _check(found: Cost, samples: Mapping[str, Sequence[cost.Sample]]) -> dict[str, cost.Check]:
    checks = {title: cost.check(found, each) for title, each in samples.items()}
    rows = [
        [
            title,
            str(c.layers),
            f"{100 * c.median:.1f} %",
            f"{100 * c.within:.0f} %",
            f"{100 * c.worst:.1f} %",
            f"{100 * c.total:+.1f} %",
        ]
        for title, c in checks.items()
    ]
    columns = ["", "layers", "median error", "within 10 %", "worst", "error of the sum"]
    output.show("how well it predicts", columns, rows)
    worst = sorted(samples["layers not seen"], key=lambda sample: -abs(sample.error(found)))[:10]
    rows = [[s.layer, output.mega(s.instructions), f"{100 * s.error(found):+.1f} %"] for s in worst]
    output.show("worst of the layers not seen", ["layer", "counted", "predicted"], rows)
    return checks


def show_roofline(model: str, board_name: str, cores: int) -> dict[str, Any]:
    """One line a kind of modulated layer."""
    board = load_board(board_name)
    found = roofline.bounds(board, read_calls(prepare(model).program, "step"), cores)
    rows = [
        [
            b.label,
            str(number),
            output.mega(b.macs),
            output.mega(b.bytes),
            f"{b.intensity:.1f}",
            f"{1e6 * b.compute_seconds:.0f}",
            f"{1e6 * b.memory_seconds:.0f}",
            b.limit,
        ]
        for b, number in Counter(found).items()
    ]
    columns = ["layer", "calls", "MACs", "bytes", "MACs a byte", "us compute", "us memory", "bound"]
    peak = f"{roofline.macs_per_second(board, cores) / 1e9:.0f} GMAC/s"
    rate = f"{board.memory.bandwidth_bytes_per_s / 1e9:.1f} GB/s"
    output.show(f"{model} on {board_name}, {cores} cores: {peak}, {rate}", columns, rows)
    seconds = sum(max(b.compute_seconds, b.memory_seconds) for b in found)
    output.say(f"modulated layers cannot take less than {1000 * seconds:.1f} ms a step")
    return {"board": board_name, "cores": cores, "layers": found, "seconds": seconds}


def show_growth(models: Sequence[str] | None, cpu: str) -> list[growth.Point]:
    """One line a model and number of steps."""
    stages = Stages()
    wanted = [(model, growth.STEPS[0]) for model in models or dict.fromkeys([*growth.SIZES, *growth.WIDTHS])]
    wanted += [(wanted[0][0], steps) for steps in growth.STEPS[1:]]
    points = []
    for model, steps in wanted:
        with stages.stage(f"count {model}, {steps} steps"):
            points.append(growth.measure(model, cpu, steps))
    rows = [
        [p.model, str(p.steps), output.giga(p.macs), output.giga(p.instructions), f"{p.per_mac:.4f}"]
        + [f"{100 * p.mac_share:.0f} %"]
        + [output.mebibytes(n) for n in (p.state_bytes, p.activation_bytes, p.program_bytes)]
        for p in points
    ]
    columns = ["model", "steps", "MACs", "a step", "per MAC", "MAC share", "state", "activations", "program"]
    output.show(f"growth of a modulated step in instructions, {cpu}", columns, rows)
    return points
