"""`ports`, `hello`, `devices`: what is plugged in, and who answers there."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

from rich.table import Table

from firmware_bridge.client import Client
from firmware_bridge.commands.options import AsJson, Baud, Port, Ports, Timeout, named_ports, people, put_json
from firmware_bridge.errors import BridgeError
from firmware_bridge.info import DeviceInfo
from firmware_bridge.link.discover import candidates
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
        shown = ", ".join(f"{key} {entry}" for key, entry in value.items()) if isinstance(value, dict) else value
        print(f"{name.replace('_', ' '):15} {'-' if shown in (None, ()) else shown}")


def devices(port: Ports = None, baud: Baud = DEFAULT_BAUD, timeout: Timeout = 5.0, as_json: AsJson = False) -> None:
    """Ask on every port at once who is there. A port on which nobody answers is listed with the reason."""
    names = named_ports(port) or [candidate.path for candidate in candidates()]

    def ask(name: str) -> DeviceInfo | BridgeError:
        try:
            with Client.open(name, baud=baud, connect_timeout=timeout) as client:
                return client.info
        except BridgeError as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
        answers = list(zip(names, pool.map(ask, names), strict=True))
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
        if isinstance(answer, BridgeError):
            table.add_row(name, f"[yellow]{answer.what}[/]")
        else:
            bundle = answer.active_bundle[:12] if answer.active_bundle else "none"
            row = (answer.board, answer.device_id, bundle, str(answer.slots), str(answer.storage_free // MIB))
            table.add_row(name, *row, answer.agent)
    people.print(table if answers else "no serial port with a device was found")
