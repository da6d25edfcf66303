"""``python -m edge.device``: the supervisor of one board, on one serial link, until it is told to stop."""

from __future__ import annotations

import enum
import logging
import os
import shlex
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boards.errors import ExitCode, KitError
from edge.device import console

if TYPE_CHECKING:
    from edge.device.supervisor import Supervisor

log = logging.getLogger("edge.device.main")  # __name__ is "__main__" here
_REOPEN_SECONDS = 1.0
_LOOK_SECONDS = 0.1
_MOST_BAUD = 3_000_000  # a UART is tried at this rate where the host can too; what fails there goes back
_FAULT = 70  # EX_SOFTWARE of sysexits.h: a service manager restarts us


class Level(enum.StrEnum):
    """How much the log says."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


def main(
    *,
    root: Annotated[Path, typer.Option(envvar="EDGE_DEVICE_ROOT", help="Folder of the device's bundles and journal.")],
    port: Annotated[
        str,
        typer.Option(
            envvar="EDGE_DEVICE_PORT",
            help="Port to the host, e.g. /dev/ttyGS0, tls:///dev/ttyGS0, or tls-listen://0.0.0.0:7000.",
        ),
    ],
    board: Annotated[str, typer.Option(envvar="EDGE_DEVICE_BOARD", help="What this board is: a name or a .toml file.")],
    certificates: Annotated[
        Path | None,
        typer.Option(
            envvar="EDGE_TLS", help="For tls: folder of ca.pem, device.pem, device.key; default: tls in the device's."
        ),
    ] = None,
    baud: Annotated[int | None, typer.Option(help="Bits a second; the board's own rate if not given.")] = None,
    engine_prefix: Annotated[str, typer.Option(help="Words before the engine's command, e.g. an emulator's.")] = "",
    trust_on_first_use: Annotated[
        bool, typer.Option("--trust-on-first-use", help="Without keys: take the key of the first signed bundle.")
    ] = False,
    lifeline: Annotated[bool, typer.Option("--lifeline", help="Stop when standard input closes.")] = False,
    log_level: Annotated[Level, typer.Option(help="How much the log on stderr says.")] = Level.info,
) -> None:
    """Serve bundles and jobs to a host on a serial port."""
    console.set_up(log_level)
    stopping = threading.Event()
    received: list[int] = []

    def stop(number: int, _frame: object) -> None:
        received.append(number)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if lifeline:
        threading.Thread(target=_watch_lifeline, args=(stopping,), name="lifeline", daemon=True).start()
    try:
        prefix = tuple(shlex.split(engine_prefix))
        supervisor = _start(root, board, prefix, trust_on_first_use=trust_on_first_use)
        try:
            _serve(supervisor, port, certificates or root / "tls", baud, stopping)
            is_well = supervisor.is_well()
        finally:
            supervisor.close()
    except KitError as error:
        log.critical("%s", error)
        raise typer.Exit(error.exit_code) from error
    if not is_well:
        raise typer.Exit(_FAULT)
    log.info("stopped")
    raise typer.Exit(ExitCode.INTERRUPTED if signal.SIGINT in received else ExitCode.DONE)


def _watch_lifeline(stopping: threading.Event) -> None:
    """Whoever started us holds the other end of our stdin; when that goes, so do we."""
    while os.read(0, 1024):
        pass
    stopping.set()


def _start(root: Path, board: str, prefix: tuple[str, ...], *, trust_on_first_use: bool) -> Supervisor:
    """A supervisor, its storage checked and its active bundle found."""
    from boards import load_board  # noqa: PLC0415  --help need not wait for these
    from edge.device.supervisor import Supervisor  # noqa: PLC0415
    from edge.device.surroundings import this_machine  # noqa: PLC0415

    known = load_board(board)
    log.info("board %s (%s), folder %s", known.name, known.title, root)
    supervisor = Supervisor(known, this_machine(root, known, prefix), trust_on_first_use=trust_on_first_use)
    supervisor.start()
    return supervisor


def _serve(supervisor: Supervisor, port: str, certificates: Path, baud: int | None, stopping: threading.Event) -> None:
    """Keep the link open. It may fail at the first opening (exit 8); after that, cables come and go."""
    from firmware_bridge.link.tls import LISTEN  # noqa: PLC0415

    if port.startswith(LISTEN):
        _serve_network(supervisor, port, certificates, stopping)
        return
    from edge.device.service import ServiceManager  # noqa: PLC0415
    from firmware_bridge.errors import LinkError, PortError  # noqa: PLC0415
    from firmware_bridge.link.security import secured  # noqa: PLC0415
    from firmware_bridge.link.serial import open_port  # noqa: PLC0415
    from firmware_bridge.serve import serve  # noqa: PLC0415
    from firmware_bridge.wire.states import Role  # noqa: PLC0415

    name, security = secured(port, Role.DEVICE, certificates)
    rate = baud or supervisor.board.link.baud
    manager = ServiceManager()
    was_open = False

    def is_over() -> bool:
        if supervisor.is_well():
            manager.alive()
        return stopping.is_set() or not supervisor.is_well()

    while not is_over():
        try:
            with open_port(name, rate) as link:
                log.info(
                    "port %s open at %d baud%s", link.name, rate, ", hosts must prove who they are" * bool(security)
                )
                was_open = True
                manager.ready()
                most = _MOST_BAUD if link.bytes_per_second else 0
                serve(link, supervisor, stop=is_over, baud=rate, most_baud=most, security=security)
        except LinkError as error:
            log.warning("%s", error)
        except PortError as error:
            if not was_open:
                raise
            log.warning("%s", error)
        stopping.wait(_REOPEN_SECONDS)


def _serve_network(supervisor: Supervisor, url: str, certificates: Path, stopping: threading.Event) -> None:
    """Serve the hosts that connect, one at a time; those that cannot prove who they are are sent away."""
    from firmware_bridge.errors import LinkError  # noqa: PLC0415
    from firmware_bridge.link.tls import Listener  # noqa: PLC0415
    from firmware_bridge.serve import serve  # noqa: PLC0415

    with Listener(url, certificates) as listener:
        log.info("listening on port %d", listener.port)
        while not stopping.is_set() and supervisor.is_well():
            try:
                link = listener.accept(_LOOK_SECONDS)
                if link is not None:
                    with link:
                        log.info("host %s connected", link.name)
                        serve(link, supervisor, stop=lambda: stopping.is_set() or not supervisor.is_well())
            except LinkError as error:
                log.warning("%s", error)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(main)

if __name__ == "__main__":
    app(prog_name="python -m edge.device")
