"""`jobs`: what is in the queue; stop a job, bring or forget the results of those that have ended."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from firmware_bridge.commands.options import AsJson, QueueFile, people, put_json
from firmware_bridge.commands.payload import write_outcome
from firmware_bridge.queue.errors import QueueFault
from firmware_bridge.queue.queue import JobQueue
from firmware_bridge.queue.records import State, default_path

JobIds = Annotated[list[str], typer.Argument(help="Ids of jobs, as `jobs list` shows them.")]

app = typer.Typer(help=__doc__, no_args_is_help=True)


@app.command("list")
def list_jobs(
    state: Annotated[State | None, typer.Option(help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest ones.")] = 50,
    queue_file: QueueFile = None,
    as_json: AsJson = False,
) -> None:
    """List the queue's jobs, the newest first."""
    with JobQueue(queue_file or default_path()) as queue:
        found, counts, stuck = queue.jobs(state, limit), queue.counts(), queue.stuck()
    if as_json:
        put_json(
            {"counts": counts, "jobs": [dataclasses.asdict(job) for job in found]}
            | {"stuck": [dataclasses.asdict(each) for each in stuck]}
        )
        return
    table = Table("job", "label", "kind", "state", "priority", "attempt", "device", "age s")
    now = time.time()
    for job in found:
        numbers = (str(job.priority), str(job.attempt + 1))
        table.add_row(
            job.job_id, job.label, job.kind, job.state, *numbers, job.holder or "", f"{now - job.created:.0f}"
        )
    people.print(table)
    people.print(", ".join(f"{count} {state}" for state, count in counts.items()))
    for each in stuck:
        people.print(f"[yellow]{each}[/]", soft_wrap=True)


@app.command()
def cancel(job_ids: JobIds, queue_file: QueueFile = None, as_json: AsJson = False) -> None:
    """Stop jobs: at once where they wait, by way of their device where one has them."""
    with JobQueue(queue_file or default_path()) as queue:
        states = {job_id: queue.cancel(job_id).value for job_id in job_ids}
    if as_json:
        put_json(states)
    for job_id, state in states.items():
        people.print(f"{job_id}: {'its device is told' if state == State.HELD else state}")


@app.command()
def results(
    job_ids: Annotated[list[str] | None, typer.Argument(help="Ids of jobs; none: all that have ended.")] = None,
    out: Annotated[Path, typer.Option(envvar="EDGE_OUT", help="Folder for the results.")] = Path("out"),
    keep: Annotated[bool, typer.Option(help="Leave them in the queue as well.")] = False,
    queue_file: QueueFile = None,
    as_json: AsJson = False,
) -> None:
    """Write the results of jobs that have ended, and take them out of the queue."""
    with JobQueue(queue_file or default_path()) as queue:
        wanted = job_ids or [job.job_id for job in queue.jobs(limit=1_000_000) if job.state.is_end]
        for job_id in wanted:
            outcome = queue.outcome(job_id)
            if outcome is None:
                raise QueueFault("the job has not ended, or is not there", where=job_id, mend="see `jobs list`")
            written = [str(path) for path in write_outcome(outcome, out)]
            put_json({"job_id": job_id, "files": written}) if as_json else print(*written)
        if not keep:
            queue.drop(wanted)
