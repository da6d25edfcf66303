"""`send`: put jobs into the queue, and by default run them and bring their results."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from firmware_bridge.commands.errors import CommandError, SomeJobsFailed, WrongInput
from firmware_bridge.commands.options import AsJson, Baud, Ports, QueueFile, people, put_json
from firmware_bridge.commands.payload import jobs_of, make_folder, parse_params, write_outcome
from firmware_bridge.fleet.fleet import Fleet
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import JobEvent
from firmware_bridge.jobs import Progress as JobProgress
from firmware_bridge.link.serial import DEFAULT_BAUD
from firmware_bridge.queue.errors import QueueFault
from firmware_bridge.queue.queue import JobQueue, queue_id
from firmware_bridge.queue.records import NewJob, Outcome, State, Stuck, default_path
from firmware_bridge.wire.messages import FailureCode

_LOOK: Final = 0.25
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
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
    queue_path = queue_file or default_path()
    limit = None if deadline is None else time.time() + deadline
    with JobQueue(queue_path) as queue:
        seen = queue.devices()
        pins = {
            "device": _whole_id(device, "device", [each.device_id for each in seen]),
            "bundle": _whole_id(bundle, "bundle", [each.bundle for each in seen if each.bundle]),
        }
        values = parse_params(param or [])
        jobs = jobs_of(kind, files or [], seed or [], values, priority=priority, deadline=limit, **pins)
        if not wait:
            queue.add(jobs)
            for job in jobs:
                put_json({"job_id": job.job_id, "label": job.label}) if as_json else print(job.job_id, job.label)
            return
        make_folder(out)
        try:
            _run(queue, jobs, out, port, baud, as_json=as_json)
        except KeyboardInterrupt:
            people.print("interrupted: the jobs stay in the queue; `watch` goes on with them, `jobs cancel` ends them")
            raise


def _whole_id(given: str | None, what: str, known: list[str]) -> str | None:
    """An id as it was given, or the one id seen so far that begins so: `devices` shows the beginnings of bundles'.

    Raises:
        CommandError: no bundle's id, and the beginning of none, or of several.
    """
    if given is None or given in known or (what == "bundle" and _DIGEST.fullmatch(given)):
        return given
    matching = sorted({each for each in known if each.startswith(given)})
    if len(matching) == 1:
        return matching[0]
    if not matching and what == "device":
        return given  # it may be plugged in later
    said = ", ".join(matching) or "none of those seen so far begins so"
    raise CommandError(f"--{what} {given}: {said}", where="send", mend=f"give the {what}'s whole id")


def _run(queue: JobQueue, jobs: list[NewJob], out: Path, ports: list[str] | None, baud: int, *, as_json: bool) -> None:
    steps: dict[str, tuple[int, int]] = {}
    lock = threading.Lock()

    def watch(_info: DeviceInfo, event: JobEvent) -> None:
        if isinstance(event, JobProgress):
            with lock:
                steps[queue_id(event.job_id)] = (event.step, event.of)

    failed: list[Outcome] = []
    told: list[Stuck] = []
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
                if (stuck := queue.stuck()) != told:
                    told = stuck
                    people.print("\n".join(map(str, stuck)), soft_wrap=True)
                queue.wait(_LOOK)
    people.print(f"{len(jobs) - len(failed)} of {len(jobs)} jobs done, results in {out}", soft_wrap=True)
    if failed:
        kind = WrongInput if all(each.code == FailureCode.BAD_INPUT for each in failed) else SomeJobsFailed
        raise kind(f"{len(failed)} of {len(jobs)} jobs failed", where=str(out), mend="their .json files say why")


def _collect(queue: JobQueue, waiting: dict[str, NewJob], out: Path, *, as_json: bool) -> list[Outcome]:
    """Write what has ended; those that failed. The queue forgets a job once its result is written."""
    ended = [outcome for job_id in waiting if (outcome := queue.outcome(job_id)) is not None]
    for outcome in ended:
        written = write_outcome(outcome, out)
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
    return [outcome for outcome in ended if outcome.state is not State.DONE]


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
