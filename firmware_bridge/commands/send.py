"""`send`: put jobs into the queue, and by default run them and bring their results."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from firmware_bridge.commands.errors import CommandError, SomeJobsFailed
from firmware_bridge.commands.options import AsJson, Baud, Ports, QueueFile, named_ports, people, put_json
from firmware_bridge.commands.payload import jobs_of, parse_params, write_outcome
from firmware_bridge.fleet.fleet import Fleet
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import JobEvent
from firmware_bridge.jobs import Progress as JobProgress
from firmware_bridge.link.serial import DEFAULT_BAUD
from firmware_bridge.queue.errors import QueueFault
from firmware_bridge.queue.queue import JobQueue, queue_id
from firmware_bridge.queue.records import NewJob, State, default_path

_LOOK: Final = 0.25
_BATCH: Final = 64
"""Jobs that go into the queue in one transaction."""


def send(  # noqa: PLR0917  a command's options
    kind: Annotated[str, typer.Argument(help="generate or inspect, or what else the device knows.")],
    files: Annotated[list[Path] | None, typer.Argument(help="One job a file: pictures, or bytes as they are.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="One job a seed where no files are given; repeat it.")] = None,
    param: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for every job, e.g. start=42; repeat it.")] = None,
    priority: Annotated[int, typer.Option(min=0, max=255, help="Higher ones begin first.")] = 0,
    deadline: Annotated[float | None, typer.Option(min=0, help="Seconds after which nobody wants the result.")] = None,
    device: Annotated[str | None, typer.Option(help="Only this device, by its id.")] = None,
    bundle: Annotated[str | None, typer.Option(help="Only where this bundle is active, by its id.")] = None,
    out: Annotated[Path, typer.Option(envvar="EDGE_OUT", help="Folder for the results.")] = Path("out"),
    wait: Annotated[bool, typer.Option(help="Run the jobs and bring their results; else only queue them.")] = True,
    port: Ports = None,
    baud: Baud = DEFAULT_BAUD,
    queue_file: QueueFile = None,
    as_json: AsJson = False,
) -> None:
    """Put jobs into the queue and bring their results. After Ctrl-C they stay there: `watch` goes on with them."""
    if not files and not seed:
        raise CommandError("no files and no seeds", where="send", mend="name files, or give --seed")
    limit = None if deadline is None else time.time() + deadline
    jobs = jobs_of(
        kind,
        files or [],
        seed or [],
        parse_params(param or []),
        priority=priority,
        deadline=limit,
        device=device,
        bundle=bundle,
    )
    with JobQueue(queue_file or default_path()) as queue:
        if not wait:
            queue.add(jobs)
            for job in jobs:
                put_json({"job_id": job.job_id, "label": job.label}) if as_json else print(job.job_id, job.label)
            return
        _run(queue, jobs, out, named_ports(port), baud, as_json=as_json)


def _run(queue: JobQueue, jobs: list[NewJob], out: Path, ports: list[str] | None, baud: int, *, as_json: bool) -> None:
    steps: dict[str, tuple[int, int]] = {}
    lock = threading.Lock()

    def watch(_info: DeviceInfo, event: JobEvent) -> None:
        if isinstance(event, JobProgress):
            with lock:
                steps[queue_id(event.job_id)] = (event.step, event.of)

    failed = 0
    columns = (TextColumn("{task.description:<12}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        _served(queue, ports, baud, watch),
        Progress(*columns, console=people, transient=True, disable=not people.is_terminal) as bars,
    ):
        whole = bars.add_task("jobs", total=len(jobs))
        each = bars.add_task("steps", total=None)
        waiting: dict[str, NewJob] = {}
        to_add = list(jobs)
        while to_add or waiting:
            for job in to_add[:_BATCH]:
                waiting[job.job_id] = job
            queue.add(to_add[:_BATCH], wait=3600)
            del to_add[:_BATCH]
            failed += _collect(queue, waiting, out, as_json=as_json)
            with lock:
                known = [steps[job_id] for job_id in waiting if job_id in steps]
            bars.update(whole, completed=len(jobs) - len(to_add) - len(waiting))
            bars.update(each, completed=sum(step for step, _ in known), total=sum(of for _, of in known) or None)
            if waiting and not to_add:
                queue.wait(_LOOK)
    people.print(f"{len(jobs) - failed} of {len(jobs)} jobs done, results in {out}", soft_wrap=True)
    if failed:
        raise SomeJobsFailed(f"{failed} of {len(jobs)} jobs failed", where=str(out), mend="their .json files say why")


def _collect(queue: JobQueue, waiting: dict[str, NewJob], out: Path, *, as_json: bool) -> int:
    """Write what has ended; how many of them failed. The queue forgets a job once its result is written."""
    ended = [outcome for job_id in waiting if (outcome := queue.outcome(job_id)) is not None]
    failed = 0
    for outcome in ended:
        written = write_outcome(outcome, out)
        failed += outcome.state is not State.DONE
        if as_json:
            found = {name: outcome.meta.get(name) for name in ("score", "novelty", "novel")}
            put_json(
                {"job_id": outcome.job_id, "label": outcome.label, "state": outcome.state.value}
                | found
                | {"message": outcome.message, "files": [str(path) for path in written]}
            )
        elif outcome.meta.get("novel"):
            people.print(f"[yellow]strange[/] {outcome.label}: unlike what calibration saw", soft_wrap=True)
        elif outcome.state is not State.DONE:
            people.print(f"[red]{outcome.state.value}[/] {outcome.label}: {outcome.message}", soft_wrap=True)
        del waiting[outcome.job_id]
    if ended:
        queue.drop([outcome.job_id for outcome in ended])
    return failed


@contextlib.contextmanager
def _served(queue: JobQueue, ports: list[str] | None, baud: int, watch: object) -> Iterator[None]:
    """Serve the queue here, or let the process do it that serves it already."""
    fleet = Fleet(queue, ports, baud=baud, watch=watch)  # type: ignore[arg-type]
    try:
        fleet.__enter__()
    except QueueFault as fault:
        people.print(f"{fault.what}: it runs the jobs")
        yield
        return
    try:
        yield
    finally:
        fleet.__exit__(None, None, None)
