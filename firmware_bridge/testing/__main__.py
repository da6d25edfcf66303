"""`python -m firmware_bridge.testing`: simulate, replay, and measure the figures that the README cites."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from boards.errors import KitError
from firmware_bridge.link.security import secured
from firmware_bridge.link.serial import open_port
from firmware_bridge.serve import serve
from firmware_bridge.testing import ptyline
from firmware_bridge.testing.device import MemoryDevice
from firmware_bridge.testing.faulty import Faults
from firmware_bridge.testing.figures import fleet, goodput, hostile, stream
from firmware_bridge.testing.simulation import Machine, cut, simulate
from firmware_bridge.wire.states import Role

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
bench = typer.Typer(help="Measure a figure.", no_args_is_help=True, add_completion=False)
app.add_typer(bench, name="bench")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Share = Annotated[float, typer.Option(min=0.0, max=1.0, help="Probability, per frame.")]
PerBit = Annotated[float, typer.Option(min=0.0, max=1.0, help="Probability, per bit.")]
Rate = Annotated[float, typer.Option(min=1.0, help="Bytes a second of the line.")]
Seconds = Annotated[float, typer.Option(min=0.0, help="How long it lasts at most.")]
UART_3M = 300_000.0
BOARD = "edge.device.simulation:Board"
"""By name: the bridge imports nothing of what is built on it."""


@app.command("simulate")
def simulate_command(
    seed: Annotated[int | None, typer.Option(help="Replay this seed.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Run this many seeds.")] = 300,
    first: Annotated[int, typer.Option(help="The first of them.")] = 0,
    machine: Annotated[str, typer.Option(help="What the devices are, MODULE:NAME.")] = BOARD,
    device_log: Annotated[bool, typer.Option("--device-log", help="Show what the devices log.")] = False,
) -> None:
    """Simulate host, devices, lines and disks; of a seed that breaks a promise, print the line that replays it."""
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.INFO if device_log else logging.CRITICAL + 1)
    kind = _machine(machine)
    chosen = range(first, first + seeds) if seed is None else (seed,)
    begun, broken = time.monotonic(), 0
    for number in chosen:
        outcome = simulate(kind, number)
        if seed is not None:
            ends = ", ".join(f"{count} {end}" for end, count in sorted(outcome.ends.items()))
            print(f"seed {number}: {outcome.seconds:.3f} s, {outcome.frames} frames, {outcome.boots} boots; {ends}")
        if outcome.violations:
            broken += 1
            again = f"python -m firmware_bridge.testing simulate --seed {number}{_named(machine)}"
            print(f"seed {number} breaks a promise; replay: {again}")
            for violation in outcome.violations:
                print(f"  {violation}")
    print(f"{len(chosen)} seeds, {broken} broken, {time.monotonic() - begun:.1f} s")
    if broken:
        sys.exit(1)


@app.command("cuts")
def cuts_command(
    seeds: Annotated[int, typer.Option(min=1, help="Cut everything this often, by other seeds.")] = 1,
    first: Annotated[int, typer.Option(help="The first seed.")] = 1,
    operation: Annotated[int | None, typer.Option(min=1, help="Cut only in this operation.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Cut in each n-th operation.")] = 1,
    machine: Annotated[str, typer.Option(help="What the device is, MODULE:NAME.")] = BOARD,
) -> None:
    """Cut the power in every disk operation of uploads, activations, jobs and a rollback, once each."""
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.CRITICAL + 1)
    kind, done, broken, begun = _machine(machine), 0, 0, time.monotonic()
    for seed in range(first, first + seeds):
        whole = cut(kind, None, seed)
        for number in range(1, whole.operations + 1, every) if operation is None else (operation,):
            outcome = cut(kind, number, seed)
            done += 1
            if outcome.violations:
                broken += 1
                again = f"python -m firmware_bridge.testing cuts --first {seed} --operation {number}{_named(machine)}"
                print(f"a cut in operation {number} breaks a promise; replay: {again}")
                for violation in outcome.violations:
                    print(f"  {violation}")
        print(f"seed {seed}: {whole.operations} operations, {whole.ends}", flush=True)
    print(f"{done} power cuts, {broken} broken, {time.monotonic() - begun:.1f} s")
    if broken:
        sys.exit(1)


def _named(machine: str) -> str:
    return "" if machine == BOARD else f" --machine {machine}"


def _machine(name: str) -> Machine:
    module, _, attribute = name.partition(":")
    try:
        made: Machine = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, ValueError) as error:
        raise typer.BadParameter(f"{name}: {error}", param_hint="--machine") from None
    return made


@app.command()
def line(
    *,
    loss: Share = 0.0,
    duplication: Share = 0.0,
    reordering: Share = 0.0,
    bit_errors: PerBit = 0.0,
    boot_log: Share = 0.0,
    burst: Share = 0.0,
    burst_seconds: Seconds = 0.02,
    stall: Share = 0.0,
    stall_seconds: Seconds = 3.0,
    bytes_per_second: Annotated[float | None, typer.Option(min=1.0, help="The line's rate.")] = None,
    seed: Annotated[int, typer.Option(help="Replays the faults.")] = 1,
) -> None:
    """Be a faulty serial line: print the paths of its two ends, end when standard input closes."""
    faults = Faults(
        loss=loss,
        duplication=duplication,
        reordering=reordering,
        bit_errors=bit_errors,
        boot_log=boot_log,
        burst=burst,
        burst_seconds=burst_seconds,
        stall=stall,
        stall_seconds=stall_seconds,
        bytes_per_second=bytes_per_second,
    )
    ptyline.run(faults, seed)


@app.command()
def fuzz(
    corpus: Annotated[Path, typer.Option(help="Folder of inputs to begin with.")],
    runs: Annotated[int, typer.Option(help="Inputs to try; 0: without end.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Replays the run.")] = 1,
    findings: Annotated[Path, typer.Option(help="Folder for new inputs and for what broke something.")] = Path("fuzz"),
) -> None:
    """Fuzz the wire, guided by coverage, with atheris (`pip install atheris`)."""
    if importlib.util.find_spec("atheris") is None:
        raise typer.BadParameter("atheris is not installed: pip install atheris", param_hint="fuzz")
    with contextlib.ExitStack() as stack:
        if runs and findings == Path("fuzz"):
            findings = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        findings.mkdir(parents=True, exist_ok=True)
        options = [f"-runs={runs or -1}", f"-seed={seed}", "-max_len=4096", f"-artifact_prefix={findings}/broken-"]
        command = [sys.executable, "-m", "firmware_bridge.testing.fuzzer", *options, str(findings), str(corpus)]
        sys.exit(subprocess.run(command, check=False).returncode)


@app.command()
def device(port: Annotated[str, typer.Option(help="The line's end; tls:// before it: with TLS.")]) -> None:
    """Be a device that echoes, for tests of hosts."""
    name, security = secured(port, Role.DEVICE)
    with open_port(name) as link:
        serve(link, MemoryDevice(slots=64), security=security)


@bench.command("goodput")
def goodput_command(
    *,
    rate: Rate = UART_3M,
    megabytes: Annotated[float, typer.Option(min=0.01, help="Size of the blob.")] = 6.0,
    loss: Share = 0.0,
    bit_errors: PerBit = 0.0,
    tls: Annotated[bool, typer.Option("--tls", help="Both ends prove who they are.")] = False,
    seed: int = 1,
    as_json: AsJson = False,
) -> None:
    """Upload a blob over two ptys with a rate limit, in real time."""
    faults = Faults(loss=loss, bit_errors=bit_errors, bytes_per_second=rate)
    found = goodput.over_ptys(int(megabytes * 1e6), faults, seed, tls=tls)
    _say(
        found,
        f"{found.bytes / 1e6:g} MB in {found.seconds:.2f} s: {found.share:.1%} of {rate:g} B/s"
        f" ({found.retransmitted} of {found.sent} packets sent again)",
        as_json,
    )


@bench.command()
def curve(rate: Rate = UART_3M, megabytes: float = 2.0, seed: int = 1, as_json: AsJson = False) -> None:
    """Goodput against loss and bit errors, in virtual time."""
    rows = [Faults(loss=loss) for loss in (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)]
    rows += [Faults(bit_errors=errors) for errors in (1e-7, 1e-6, 1e-5, 3e-5, 1e-4, 2e-4)]
    rows += [Faults(loss=0.02, duplication=0.02, reordering=0.02, bit_errors=1e-5, boot_log=0.01)]
    found = []
    for row in rows:
        faults = dataclasses.replace(row, bytes_per_second=rate)
        one = goodput.in_virtual_time(int(megabytes * 1e6), faults, seed)
        found.append({"faults": dataclasses.asdict(faults), **dataclasses.asdict(one)})
        if not as_json:
            named = ", ".join(f"{name} {value:g}" for name, value in _faults_of(row).items()) or "clean"
            print(f"{one.share:6.1%}  {named}  ({one.retransmitted} of {one.sent} packets sent again)", flush=True)
    if as_json:
        print(json.dumps(found))


def _faults_of(faults: Faults) -> dict[str, float]:
    usual = dataclasses.asdict(Faults())
    return {name: value for name, value in dataclasses.asdict(faults).items() if value != usual[name]}


@bench.command()
def corruption(frames: int = 1_000_000, seed: int = 1, as_json: AsJson = False) -> None:
    """Damage frames and count those that are taken for whole."""
    accepted = hostile.corrupted_frames(frames, seed)
    if as_json:
        print(json.dumps({"frames": frames, "accepted": accepted}))
    else:
        print(f"{frames} damaged frames, {accepted} accepted")
    if accepted:
        sys.exit(1)


@bench.command()
def garbage(megabytes: float = 1024.0, seed: int = 1, as_json: AsJson = False) -> None:
    """Flood a receiver with garbage and watch its memory."""
    found = hostile.garbage(int(megabytes * 2**20), seed)
    grown = found.rss_after - found.rss_before
    text = (
        f"{found.bytes / 2**20:.0f} MiB of garbage: RSS {found.rss_before} KiB early, {found.rss_after} KiB at the end"
    )
    _say(found, f"{text} ({grown:+} KiB), peak {found.peak} KiB, {found.events} events", as_json)


@bench.command("stream")
def stream_command(jobs: int = 1000, payload: int = 1024, as_json: AsJson = False) -> None:
    """Stream small jobs to a device that computes nothing."""
    found = stream.stream(jobs, payload)
    _say(found, f"{found.jobs} jobs: {found.cpu_ms:.2f} ms CPU, {found.wall_ms:.2f} ms each on the host", as_json)


@bench.command("queued")
def queued_command(jobs: int = 1000, payload: int = 1024, as_json: AsJson = False) -> None:
    """Stream small jobs through the durable queue to a device that computes nothing."""
    found = fleet.queued_cost(jobs, payload)
    _say(
        found, f"{found.jobs} queued jobs: {found.cpu_ms:.2f} ms CPU, {found.wall_ms:.2f} ms each on the host", as_json
    )


@bench.command("fleet")
def fleet_command(
    devices: Annotated[int, typer.Option(min=1, help="Devices, each a process on a pty.")] = 16,
    seconds: Annotated[float, typer.Option(min=1.0, help="Seconds of work for each.")] = 10.0,
    step: Annotated[float, typer.Option(min=0.001, help="Seconds that a device takes for a step.")] = 0.1,
    as_json: AsJson = False,
) -> None:
    """Compare the throughput of many devices on this host with that of one."""
    found = fleet.throughput(devices, seconds, step, steps=5)
    text = f"{found.devices} devices: {found.all:.2f} jobs/s, one: {found.one:.2f} jobs/s, {found.ratio:.1f} times"
    _say(found, text, as_json)


def _say(found: object, text: str, as_json: bool) -> None:
    print(json.dumps(dataclasses.asdict(found)) if as_json else text)  # type: ignore[call-overload]


def main() -> None:
    """Run a command; an error of the kit ends in its message and its exit code."""
    try:
        app(prog_name="python -m firmware_bridge.testing")
    except KitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
