"""Which board is meant: the one on a port, or a virtual one, and which of both it is is always said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import UsageError
from edge.release import own_key
from edge.virtual import virtual_board
from firmware_bridge.client import Client
from firmware_bridge.link.discover import candidates, resolve
from firmware_bridge.link.security import secured
from firmware_bridge.link.serial import open_port
from firmware_bridge.wire.states import Role

if TYPE_CHECKING:
    from boards import Board
    from edge.console import Stages
    from edge.deploy.options import DeployOptions


def choose_port(options: DeployOptions, board: Board) -> str | None:
    """The port to open, or None for a virtual board; decided, and opened once, before the long work.

    Raises:
        PortError: the named port is not there or taken; "auto" finds none; several could be meant; no certificates.
    """
    if options.virtual or (options.port is None and not candidates()):
        return None
    port = resolve(options.port or "auto")
    name, _ = secured(port, Role.HOST)
    if "://" not in name:
        open_port(name, board.link.baud).close()
    return port


@contextmanager
def connect(port: str | None, options: DeployOptions, board: Board, stages: Stages) -> Iterator[Client]:
    """A client of the board on ``port``, or of a virtual board where it is None.

    Raises:
        PortError: the port is taken; with TLS, the device is not believed, or does not believe this host.
        LinkError: nobody answers.
        UsageError: the device there is another board.
        KeyFault: the user's key can be neither read nor made.
    """
    if port is not None:
        own_key(stages.say)
        with Client.open(port, baud=board.link.baud) as client:
            yield _checked(client, board, stages)
        return
    file = Path(options.board) if options.board.endswith(".toml") else None
    root = options.cache / "virtual" / board.name
    with virtual_board(board, root, board_file=file, trusted=own_key(stages.say)) as virtual:
        emulator = f"{board.emulator.program} -cpu {board.emulator.cpu}" if board.emulator else "this machine"
        stages.say(f"no board is attached: started a [bold]virtual {board.name}[/] ({emulator}) on {virtual.port}")
        with Client.open(virtual.port) as client:
            yield _checked(client, board, stages)


def _checked(client: Client, board: Board, stages: Stages) -> Client:
    info = client.info
    if info.board != board.name:
        raise UsageError(
            f"the device says that it is a {info.board}",
            where=f"--board {board.name}",
            mend=f"use --board {info.board}",
        )
    stages.say(f"connected: {info.board}, device {info.device_id}, {info.agent}, {info.slots} slots")
    return client
