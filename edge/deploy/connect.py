"""Which board is meant: the one on a port, or a virtual one, and which of both it is is always said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import UsageError
from edge.virtual import virtual_board
from firmware_bridge.client import Client
from firmware_bridge.link.discover import candidates

if TYPE_CHECKING:
    from boards import Board
    from edge.console import Stages
    from edge.deploy.options import DeployOptions


@contextmanager
def connect(options: DeployOptions, board: Board, stages: Stages) -> Iterator[Client]:
    """A client of the board: the named port's; else, where no port is there or it is asked for, a virtual board's.

    Raises:
        PortError: the port is missing or taken, or several could be meant.
        LinkError: nobody answers.
        UsageError: the device there is another board.
    """
    port = options.port
    if port is None and not options.virtual and candidates():
        port = "auto"
    if port is not None:
        with Client.open(port, baud=board.link.baud) as client:
            yield _checked(client, board, stages)
        return
    file = Path(options.board) if options.board.endswith(".toml") else None
    with virtual_board(board, options.cache / "virtual" / board.name, board_file=file) as virtual:
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
