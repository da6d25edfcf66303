"""`watch`: serve the queue with every device that is or will be plugged in, and say what happens."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from firmware_bridge.commands.options import AsJson, Baud, Ports, QueueFile, people, put_json
from firmware_bridge.commands.payload import make_folder, save_pixels
from firmware_bridge.fleet.fleet import Fleet, PortStatus
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import Failure, JobEvent, Preview, Progress, Result
from firmware_bridge.link.serial import DEFAULT_BAUD
from firmware_bridge.queue.queue import JobQueue, queue_id
from firmware_bridge.queue.records import State, Stuck, default_path

_LOOK = 0.5


def watch(  # noqa: PLR0917  a command's options
    port: Ports = None,
    baud: Baud = DEFAULT_BAUD,
    queue_file: QueueFile = None,
    until_empty: Annotated[bool, typer.Option("--until-empty", help="End when no job waits or runs.")] = False,
    preview: Annotated[Path | None, typer.Option(help="Folder for pictures of running jobs, JOB.png each.")] = None,
    preview_every: Annotated[int, typer.Option(min=1, help="Steps between two of them.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Serve the queue until Ctrl-C: one line for each device that comes or goes, and each job that ends.

    With --json also one for each step. Results stay in the queue until `jobs results` or `send` takes them.
    """
    if preview is not None:
        make_folder(preview)
    teller = _Teller(preview, as_json=as_json)
    every = preview_every if preview else 0
    with (
        JobQueue(queue_file or default_path()) as queue,
        Fleet(queue, port, baud=baud, watch=teller.event, preview_every=every) as fleet,
    ):
        before: list[PortStatus] = []
        while not (until_empty and _is_empty(queue)):
            now = fleet.status()
            for status in now:
                if status not in before:
                    teller.port(status)
            before = now
            teller.stuck(queue.stuck())
            queue.wait(_LOOK)


class _Teller:
    """Says what happens; from any thread.

    Args:
        previews: folder for pictures.
        as_json: for a program.
    """

    def __init__(self, previews: Path | None, *, as_json: bool) -> None:
        self._previews = previews
        self._as_json = as_json
        self._lock = threading.Lock()
        self._stuck: list[Stuck] = []

    def port(self, status: PortStatus) -> None:
        """A port has another device, or another trouble."""
        with self._lock:
            if self._as_json:
                put_json({"event": "port", "port": status.port, "device": status.device_id, "trouble": status.trouble})
            elif status.device_id or status.trouble:
                what = f"device {status.device_id}" if status.device_id else f"[yellow]{status.trouble}[/]"
                people.print(f"{_now()}  {status.port}  {what}", soft_wrap=True)

    def stuck(self, stuck: list[Stuck]) -> None:
        """Jobs wait that no device takes; said when it changes."""
        if stuck == self._stuck:
            return
        self._stuck = stuck
        with self._lock:
            for each in stuck:
                if self._as_json:
                    put_json({"event": "stuck", "device": each.device, "bundle": each.bundle, "jobs": each.jobs})
                else:
                    people.print(f"{_now()}  [yellow]{each}[/]", soft_wrap=True)

    def event(self, info: DeviceInfo, event: JobEvent) -> None:
        """A job goes on, or has ended."""
        job_id, device = queue_id(event.job_id), info.device_id
        about: dict[str, object]
        match event:
            case Preview():
                if self._previews is None:
                    return
                path = self._previews / f"{job_id}.png"
                save_pixels(event.pixels, event.shape, path)
                kind, about = "preview", {"step": event.step, "of": event.of, "file": str(path)}
            case Progress():
                milliseconds = event.nanoseconds / 1e6
                kind, about = "progress", {"step": event.step, "of": event.of, "milliseconds": milliseconds}
            case Failure():
                kind, about = "failure", {"code": event.code, "message": event.message}
            case Result():
                kind, about = "result", {}
        with self._lock:
            if self._as_json:
                put_json({"event": kind, "job_id": job_id, "device": device, "time": time.time(), **about})
            elif isinstance(event, Result | Failure):
                people.print(f"{_now()}  {kind}  {job_id}  {device}  {about.get('message', '')}", soft_wrap=True)


def _is_empty(queue: JobQueue) -> bool:
    counts = queue.counts()
    return not counts[State.WAITING] and not counts[State.HELD]


def _now() -> str:
    return time.strftime("%H:%M:%S")
