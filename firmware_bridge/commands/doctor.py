"""`doctor`: looks at everything between a job and a device, and says what to do about what is wrong."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from firmware_bridge.client import Client
from firmware_bridge.commands.options import AsJson, Baud, Ports, QueueFile, Timeout, people, put_json
from firmware_bridge.commands.served import served
from firmware_bridge.errors import BridgeError, PortTaken
from firmware_bridge.info import AGENT
from firmware_bridge.link.discover import SECURE, named
from firmware_bridge.link.serial import DEFAULT_BAUD
from firmware_bridge.queue.queue import LEASE, JobQueue
from firmware_bridge.queue.records import State, default_path

LOW_STORAGE: Final = 64 << 20
"""Bytes: less room than a bundle of the usual size takes."""

_PROBERS: Final = {
    "ModemManager": "it sends AT commands to new ports: sudo systemctl mask --now ModemManager, or a udev rule with "
    'ENV{ID_MM_DEVICE_IGNORE}="1"',
    "brltty": "it takes CH340 and CP210x adapters for braille displays: sudo apt-get remove brltty",
}
"""Programs that open serial ports on their own, and how to keep them away."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``mend``: what to do about it; empty where it is well."""

    what: str
    is_well: bool
    detail: str
    mend: str = ""


def doctor(
    port: Ports = None,
    baud: Baud = DEFAULT_BAUD,
    timeout: Timeout = 5.0,
    queue_file: QueueFile = None,
    as_json: AsJson = False,
) -> None:
    """Check ports, permissions, meddling programs, devices and the queue. Exit code 1 if something is wrong."""
    findings: list[Finding] = []
    for finding in _look(port, baud, timeout, queue_file or default_path()):
        findings.append(finding)
        if not as_json:
            mark = "[green]ok[/]     " if finding.is_well else "[red]problem[/]"
            people.print(f"{mark} {finding.what}: {finding.detail}", soft_wrap=True)
            if finding.mend:
                people.print(f"        mend: {finding.mend}", soft_wrap=True)
    if as_json:
        put_json([dataclasses.asdict(finding) for finding in findings])
    if not all(finding.is_well for finding in findings):
        raise typer.Exit(1)


def _look(ports: list[str] | None, baud: int, timeout: float, queue_file: Path) -> Iterator[Finding]:
    yield from meddlers(Path("/proc"))
    names = named(ports)
    if not names:
        mend = "plug a device in; a USB cable must carry data; EDGE_PORTS names ports that are not found"
        yield Finding("ports", is_well=False, detail="no serial port with a device was found", mend=mend)
    for name in names:
        yield from port_findings(name, baud, timeout, queue_file)
    yield queue_finding(queue_file)


def meddlers(proc: Path) -> Iterator[Finding]:
    """Programs that run here and open serial ports on their own."""
    running = set()
    for comm in proc.glob("[0-9]*/comm"):
        try:
            running.add(comm.read_text().strip())
        except OSError:  # it has ended meanwhile
            continue
    found = sorted(running & set(_PROBERS))
    for name in found:
        yield Finding("programs", is_well=False, detail=f"{name} runs on this host", mend=_PROBERS[name])
    if not found:
        yield Finding("programs", is_well=True, detail="none that opens serial ports on its own")


def port_findings(name: str, baud: int, timeout: float, queue_file: Path) -> Iterator[Finding]:
    """One port: may we open it, does a device answer, and is it ready for jobs."""
    what = f"port {name}"
    path = Path(name.removeprefix(SECURE))
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        mend = "sudo usermod -aG dialout $USER, then log in again"
        yield Finding(what, is_well=False, detail="you may not open it", mend=mend)
        return
    try:
        with Client.open(name, baud=baud, connect_timeout=timeout) as client:
            info, counters, text = client.info, client.counters(), client.console()
    except PortTaken as error:
        record = served(name, error, queue_file)
        by = "; ".join(map(str, error.holders))
        if record is None:
            yield Finding(what, is_well=False, detail=error.what, mend=error.mend)
        else:
            yield Finding(what, is_well=True, detail=f"{record.board} {record.device_id} is served by {by}")
        return
    except BridgeError as error:
        yield Finding(what, is_well=False, detail=error.what, mend=error.mend)
        return
    yield Finding(what, is_well=True, detail=f"{info.board} {info.device_id} answers, {info.agent}, for {AGENT}")
    if counters["damaged"]:
        mend = "a better cable, a shorter one, or a lower --baud"
        yield Finding(what, is_well=False, detail=f"{counters['damaged']} damaged frames in one hello", mend=mend)
    if text.strip():
        mend = "take the console off this port (console= in the kernel's command line, serial-getty)"
        detail = f"other text on the line: {text.strip().splitlines()[-1][:80]!r}"
        yield Finding(what, is_well=False, detail=detail, mend=mend)
    if info.active_bundle is None:
        mend = "python -m edge.deploy --board " + info.board
        yield Finding(what, is_well=False, detail="the device has no active bundle", mend=mend)
    if info.storage_free < LOW_STORAGE:
        detail = f"{info.storage_free >> 20} MiB of storage are left"
        yield Finding(what, is_well=False, detail=detail, mend="remove what is not the kit's from its disk")


def queue_finding(path: Path) -> Finding:
    """The queue: can it be used, and does anything hang in it."""
    if not path.exists():
        return Finding("queue", is_well=True, detail=f"{path} is not there yet; the first job makes it")
    try:
        with JobQueue(path) as queue:
            counts, devices, stuck = queue.counts(), queue.devices(), queue.stuck()
    except BridgeError as error:
        return Finding("queue", is_well=False, detail=error.what, mend=error.mend)
    held_by_lost = [each for each in devices if each.held and queue.age(each.seen) > LEASE]
    if held_by_lost:
        lost = ", ".join(f"{each.device_id} ({each.held} jobs)" for each in held_by_lost)
        mend = "plug it in, or run `watch`: it gives the jobs to other devices"
        return Finding("queue", is_well=False, detail=f"not seen for long: {lost}", mend=mend)
    if stuck:
        mend = "plug that device in or deploy that bundle, or cancel them: python -m firmware_bridge jobs cancel"
        return Finding("queue", is_well=False, detail="; ".join(map(str, stuck)), mend=mend)
    detail = f"{counts[State.WAITING]} waiting, {counts[State.HELD]} on devices, {counts[State.FAILED]} failed"
    return Finding("queue", is_well=True, detail=detail)
