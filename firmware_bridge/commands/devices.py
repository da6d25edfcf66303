"""`ports`, `hello`, `devices`: what is plugged in, and who answers there."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import typer
from rich.markup import escape
from rich.table import Table

from boards.errors import ExitCode
from firmware_bridge.client import Client
from firmware_bridge.commands.options import AsJson, Baud, Port, Ports, Timeout, people, put_json
from firmware_bridge.errors import BridgeError
from firmware_bridge.info import DeviceInfo
from firmware_bridge.link.discover import candidates, named
from firmware_bridge.link.serial import DEFAULT_BAUD

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


def devices(port: Ports = None, baud: Baud = DEFAULT_BAUD, timeout: Timeout = 5.0, as_json: AsJson = False) -> None:
    """Ask on every port at once who is there; a port on which nobody answers is listed with the reason.

    Where no device answers at all, it ends with exit code 8.
    """
    names = named(port)

    def ask(name: str) -> DeviceInfo | BridgeError:
        try:
            with Client.open(name, baud=baud, connect_timeout=timeout) as client:
                return client.info
        except BridgeError as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
        answers = list(zip(names, pool.map(ask, names), strict=True))
    _print(answers, as_json=as_json)
    if not any(isinstance(answer, DeviceInfo) for _, answer in answers):
        raise typer.Exit(ExitCode.PORT)


def _print(answers: list[tuple[str, DeviceInfo | BridgeError]], *, as_json: bool) -> None:
    if as_json:
        put_json(
            [
                {"port": name, "error": answer.what, "mend": answer.mend}
                if isinstance(answer, BridgeError)
                else {"port": name, **dataclasses.asdict(answer)}
                for name, answer in answers
            ]
        )
        return
    table = Table("port", "board", "device", "bundle", "slots", "free MiB", "agent")
    for name, answer in answers:
        if isinstance(answer, DeviceInfo):
            bundle = answer.active_bundle[:12] if answer.active_bundle else "none"
            row = (answer.board, answer.device_id, bundle, str(answer.slots), str(answer.storage_free // MIB))
            table.add_row(name, *row, answer.agent)
    if table.rows:
        people.print(table)
    for name, answer in answers:
        if isinstance(answer, BridgeError):
            mend = f" ({answer.mend})" if answer.mend else ""
            people.print(f"{name}  [yellow]{escape(answer.what)}[/]{escape(mend)}", soft_wrap=True)
    if not answers:
        people.print("no serial port with a device was found; `doctor` looks for the reason")
