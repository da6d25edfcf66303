"""`ports`, `hello`, `devices`: what is plugged in, and who answers there."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import typer
from rich.markup import escape
from rich.table import Table

from boards.errors import ExitCode
from firmware_bridge.client import Client
from firmware_bridge.commands.options import AsJson, Baud, Port, Ports, QueueFile, Timeout, people, put_json
from firmware_bridge.commands.served import served
from firmware_bridge.errors import BridgeError, PortTaken
from firmware_bridge.info import DeviceInfo
from firmware_bridge.link.discover import candidates, named
from firmware_bridge.link.serial import DEFAULT_BAUD
from firmware_bridge.queue.records import DeviceRecord, default_path

MIB = 1 << 20


def ports(as_json: AsJson = False) -> None:
    """List the serial ports that a device may be on."""
    found = candidates()
    if as_json:
        put_json([dataclasses.asdict(candidate) for candidate in found])
        return
    for candidate in found:
        print(f"{candidate.path}  {candidate.description}")
    if not found:
        people.print("no serial port with a device was found")


def hello(port: Port = "auto", baud: Baud = DEFAULT_BAUD, timeout: Timeout = 10.0, as_json: AsJson = False) -> None:
    """Ask the device on a port who it is and what it can hold."""
    with Client.open(port, baud=baud, connect_timeout=timeout) as client:
        info = dataclasses.asdict(client.info)
    if as_json:
        put_json(info)
        return
    for name, value in info.items():
        print(f"{name.replace('_', ' '):15} {_shown(value)}")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in value.items())
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)


Answer = DeviceInfo | BridgeError
"""What came of asking on a port."""


def devices(
    port: Ports = None,
    baud: Baud = DEFAULT_BAUD,
    timeout: Timeout = 5.0,
    queue_file: QueueFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask on every port at once who is there; a port on which nobody answers is listed with the reason.

    A device that a running `watch` serves is listed as the queue knows it, with the process that has it. Where no
    device is found at all, it ends with exit code 8.
    """
    names = named(port)

    def ask(name: str) -> Answer:
        try:
            with Client.open(name, baud=baud, connect_timeout=timeout) as client:
                return client.info
        except BridgeError as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
        answers = list(zip(names, pool.map(ask, names), strict=True))
    queue_path = queue_file or default_path()
    known = {
        name: record
        for name, answer in answers
        if isinstance(answer, PortTaken) and (record := served(name, answer, queue_path)) is not None
    }
    if as_json:
        put_json([_plain(name, answer, known.get(name)) for name, answer in answers])
    else:
        _print(answers, known)
    if not known and not any(isinstance(answer, DeviceInfo) for _, answer in answers):
        raise typer.Exit(ExitCode.PORT)


def _plain(name: str, answer: Answer, record: DeviceRecord | None) -> dict[str, object]:
    if isinstance(answer, DeviceInfo):
        return {"port": name, **dataclasses.asdict(answer)}
    plain: dict[str, object] = {"port": name}
    if record is None:
        plain |= {"error": answer.what, "mend": answer.mend}
    else:
        about = {"device_id": record.device_id, "board": record.board, "slots": record.slots}
        plain |= about | {"active_bundle": record.bundle, "seen": record.seen, "jobs": record.held}
    if isinstance(answer, PortTaken):
        plain["held_by"] = [dataclasses.asdict(holder) for holder in answer.holders]
    return plain


def _print(answers: list[tuple[str, Answer]], known: dict[str, DeviceRecord]) -> None:
    table = Table("port", "board", "device", "bundle", "slots", "free MiB", "agent")
    for name, answer in answers:
        if isinstance(answer, DeviceInfo):
            about = (answer.board, answer.device_id, _short(answer.active_bundle), str(answer.slots))
            table.add_row(name, *about, str(answer.storage_free // MIB), answer.agent)
        elif name in known:
            record = known[name]
            table.add_row(name, record.board, record.device_id, _short(record.bundle), str(record.slots), "", "served")
    if table.rows:
        people.print(table)
    for name, answer in answers:
        if isinstance(answer, PortTaken) and name in known:
            jobs = f"{known[name].held} jobs on it"
            people.print(f"{name}  served by {escape('; '.join(map(str, answer.holders)))}, {jobs}", soft_wrap=True)
        elif isinstance(answer, BridgeError):
            mend = f" ({answer.mend})" if answer.mend else ""
            people.print(f"{name}  [yellow]{escape(answer.what)}[/]{escape(mend)}", soft_wrap=True)
    if not answers:
        people.print("no serial port with a device was found; `doctor` looks for the reason")


def _short(bundle: str | None) -> str:
    return bundle[:12] if bundle else "none"
