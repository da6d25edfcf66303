"""``python -m tests.bench``: one subcommand a measurement; see README.md beside this file."""

from __future__ import annotations

from typing import Annotated

import typer

from edge.console import reports_errors
from tests.bench import output
from tests.bench.instructions import count

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
AsJson = Annotated[bool, typer.Option("--json", help="Write the result to stdout as JSON.")]
Model = Annotated[str, typer.Argument(help="cifar10, cifar10-heads, demo, or unet-, grid- or plain-SIZEpx-WIDTH.")]
Isa = Annotated[str, typer.Option(help="Which of our kernels: auto, dotprod, neon, portable.")]
Cpu = Annotated[str, typer.Option(help="The core to emulate, as QEMU names it.")]
BoardName = Annotated[str, typer.Option("--board", help="Name or path of a board.")]


@app.callback()
def bench() -> None:
    """Measure the engine and its rivals, side by side."""
    output.quiet()


@app.command("count", context_settings={"ignore_unknown_options": True})
@reports_errors
def count_command(
    command: Annotated[list[str], typer.Argument(help="An aarch64 program and its arguments.")],
    cpu: Cpu = "cortex-a76",
    json: AsJson = False,
) -> None:
    """Count the instructions of any aarch64 program by class."""
    recording = count(command, cpu=cpu)
    rows = [[name, f"{found:,}"] for name, found in recording.total.items()]
    output.show("instructions executed", ["class", "count"], [*rows, ["total", f"{recording.total.total:,}"]])
    output.emit(recording.total, as_json=json)


@app.command()
@reports_errors
def operators(
    model: Model = "cifar10",
    *,
    isa: Isa = "auto",
    cpu: Cpu = "cortex-a76",
    calls: Annotated[int, typer.Option(help="Also show this many of the dearest calls.")] = 0,
    functions: Annotated[bool, typer.Option(help="Also by function; runs twice.")] = False,
    json: AsJson = False,
) -> None:
    """Where a modulated step's instructions go in our engine: by operator, call and function."""
    from tests.bench.ours import count_steps, prepare
    from tests.bench.program import read_calls
    from tests.bench.shares import COLUMNS, Share, by_function, by_operator, per_call, rows

    prepared = prepare(model)
    recording, _ = count_steps(prepared, 3, cpu=cpu, isa=isa, marked=True)
    each = per_call(recording, read_calls(prepared.program, "step"), 1)
    shares = by_operator(each)
    total = sum(share.counts.total for share in shares)
    output.show(f"{model}, one modulated step by operator: {output.giga(total)}", COLUMNS, rows(shares))
    document = {"model": model, "cpu": cpu, "isa": isa, "instructions": total, "operators": shares}
    if calls:
        dearest = sorted((Share(call.label, 1, counts) for call, counts in each), key=lambda s: -s.counts.total)
        output.show("by call", COLUMNS, rows(dearest, calls))
        document["calls"] = dearest[:calls]
    if functions:
        short, _ = count_steps(prepared, 2, cpu=cpu, isa=isa)
        found = by_function(recording, short)
        output.show("by function", COLUMNS, rows(found, 30))
        document["functions"] = found
    output.emit(document, as_json=json)


@app.command()
@reports_errors
def loops(json: AsJson = False) -> None:
    """Cycles per 16 MACs of each inner loop of the built engine, by llvm-mca."""
    from edge.toolchain import build_engine
    from tests.bench import mca

    found = mca.loops(build_engine("aarch64", symbols=True).engine)
    costs = [mca.loop_cost(loop, core) for loop in found for core in mca.CORES]
    rows = [
        [
            c.function,
            c.core,
            str(c.instructions),
            str(c.macs),
            f"{c.cycles:.1f}",
            f"{c.per_16_macs:.3f}",
            f"{mca.IDEAL[c.core]}",
        ]
        for c in costs
    ]
    columns = ["inner loop", "core", "instr", "MACs", "cycles", "cycles per 16 MACs", "ideal"]
    output.show("inner loops by llvm-mca", columns, rows)
    output.emit([{**vars(c), "per_16_macs": c.per_16_macs} for c in costs], as_json=json)


@app.command()
@reports_errors
def compare(
    model: Model = "cifar10",
    *,
    cpu: Cpu = "cortex-a76",
    threads: Annotated[str, typer.Option(help="Thread counts of the wall-clock contests.")] = "1,2",
    rounds: Annotated[int, typer.Option(min=3, help="Rounds of each contest.")] = 15,
    instructions: Annotated[bool, typer.Option(help="Count instructions under emulation: minutes each.")] = True,
    only: Annotated[
        list[str] | None, typer.Option(help="Rows by words of their names, such as 'xnnpack int8'.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Ours and the rivals side by side: instructions a step, wall-clock ratio, memory, file size."""
    from tests.bench.report import compare_all

    numbers = [int(number) for number in threads.split(",")]
    output.emit(compare_all(model, cpu, numbers, rounds, only or [], count=instructions), as_json=json)


@app.command()
@reports_errors
def planned(
    model: Model = "cifar10",
    *,
    cost: Annotated[float, typer.Option(help="Of the plan: a share of one pass of every layer at every step.")] = 0.5,
    steps: Annotated[int, typer.Option(min=3, help="Of the sampler.")] = 13,
    board: BoardName = "rpi5",
    cpu: Cpu = "cortex-a76",
    json: AsJson = False,
) -> None:
    """What a step costs under a plan of the planner; about ten minutes of planning."""
    from tests.bench.report import show_planned

    output.emit(show_planned(model, steps, cost, board, cpu), as_json=json)


@app.command()
@reports_errors
def fit(board: BoardName = "rpi5", json: AsJson = False) -> None:
    """Fit a board's cost model to counted layers, and check it on layers that it has not seen."""
    from tests.bench.report import fit_board

    output.emit(fit_board(board), as_json=json)


@app.command()
@reports_errors
def check(board: BoardName = "rpi5", json: AsJson = False) -> None:
    """Check the cost model in a board's file on layers that no fit has seen; exit code 6 where it is off."""
    from tests.bench.report import check_board

    output.emit(check_board(board), as_json=json)


@app.command()
@reports_errors
def roofline(
    model: Model = "cifar10",
    *,
    board: BoardName = "rpi5",
    cores: Annotated[int, typer.Option(min=1, help="Cores that compute.")] = 1,
    json: AsJson = False,
) -> None:
    """MACs, bytes and the bound of each modulated layer on a board."""
    from tests.bench.report import show_roofline

    output.emit(show_roofline(model, board, cores), as_json=json)


@app.command()
@reports_errors
def growth(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models; by default sizes 32-256 and widths; the first also over steps.")
    ] = None,
    cpu: Cpu = "cortex-a76",
    json: AsJson = False,
) -> None:
    """How a step grows with image size, width and the number of steps."""
    from tests.bench.report import show_growth

    output.emit(show_growth(models, cpu), as_json=json)


if __name__ == "__main__":
    app()
