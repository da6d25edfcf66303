"""`watch`: serve the queue with every device that is or will be plugged in, and say what happens."""

from __future__ import annotations

import threading
import time
from typing import Annotated

import typer

from firmware_bridge.commands.options import AsJson, Baud, Ports, QueueFile, named_ports, people, put_json
from firmware_bridge.fleet.fleet import Fleet, PortStatus
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import Failure, JobEvent, Progress
from firmware_bridge.link.serial import DEFAULT_BAUD
from firmware_bridge.queue.queue import JobQueue, queue_id
from firmware_bridge.queue.records import State, default_path

_LOOK = 0.5


def watch(
    port: Ports = None,
    baud: Baud = DEFAULT_BAUD,
    queue_file: QueueFile = None,
    until_empty: Annotated[bool, typer.Option("--until-empty", help="End when no job waits or runs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Serve the queue until Ctrl-C: one line for each device that comes or goes, and each job that ends.

    With --json also one for each step. Results stay in the queue until `jobs results` or `send` takes them.
    """
    lock = threading.Lock()

    def tell(info: DeviceInfo, event: JobEvent) -> None:
        kind = "progress" if isinstance(event, Progress) else "failure" if isinstance(event, Failure) else "result"
        said = {"event": kind, "job_id": queue_id(event.job_id), "device": info.device_id, "time": time.time()}
        if isinstance(event, Progress):
            said |= {"step": event.step, "of": event.of, "milliseconds": event.nanoseconds / 1e6}
        elif isinstance(event, Failure):
            said |= {"code": event.code, "message": event.message}
        with lock:
            if as_json:
                put_json(said)
            elif kind != "progress":
                people.print(f"{_now()}  {kind}  {said['job_id']}  {info.device_id}  {said.get('message', '')}")

    with (
        JobQueue(queue_file or default_path()) as queue,
        Fleet(queue, named_ports(port), baud=baud, watch=tell) as fleet,
    ):
        before: list[PortStatus] = []
        while not (until_empty and _is_empty(queue)):
            now = fleet.status()
            for status in now:
                if status not in before:
                    with lock:
                        _tell_port(status, as_json=as_json)
            before = now
            queue.wait(_LOOK)


def _tell_port(status: PortStatus, *, as_json: bool) -> None:
    if as_json:
        put_json({"event": "port", "port": status.port, "device": status.device_id, "trouble": status.trouble})
    elif status.device_id or status.trouble:
        what = f"device {status.device_id}" if status.device_id else f"[yellow]{status.trouble}[/]"
        people.print(f"{_now()}  {status.port}  {what}", soft_wrap=True)


def _is_empty(queue: JobQueue) -> bool:
    counts = queue.counts()
    return not counts[State.WAITING] and not counts[State.HELD]


def _now() -> str:
    return time.strftime("%H:%M:%S")
