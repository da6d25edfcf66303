"""Over the line: bring the bundle to the board, activate it, run jobs, collect what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edge.bundle import MANIFEST
from edge.deploy.conditions import to_bytes
from edge.release import release_for
from firmware_bridge.errors import JobFailed
from firmware_bridge.jobs import Failure, JobRequest, Progress, Result, new_job_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from edge.bundle import Bundle
    from edge.console import Report, Stages
    from firmware_bridge.client import Client


@dataclass(frozen=True)
class Job:
    """One thing to run: ``generate`` when there is no image, else ``inspect`` from step ``start``.

    ``image``: uint8 [C, H, W] or None; ``conditions``: what the model takes beside, by name, [1, ...].
    """

    title: str
    seed: int
    start: int = 0
    image: NDArray[np.uint8] | None = None
    conditions: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What the device made of a job: ``x`` float32 [C, H, W]; ``anomalies`` float32 [H, W] for inspections."""

    job: Job
    x: NDArray[np.float32]
    anomalies: NDArray[np.float32] | None
    meta: Mapping[str, object]


def bring(client: Client, bundle: Bundle, stages: Stages) -> int:
    """Upload the blobs that the device lacks and activate the bundle; returns the bytes sent."""
    blobs = {file.sha256: (bundle.folder / file.name, file.bytes) for file in bundle.manifest.files}
    blobs[bundle.bundle_id] = (bundle.folder / MANIFEST, (bundle.folder / MANIFEST).stat().st_size)
    present = client.has(blobs)
    missing = {digest: blob for digest, blob in blobs.items() if digest not in present}
    total = sum(size for _, size in missing.values())
    sent = 0
    with stages.stage("send the bundle (kB)") as report:
        for digest, (path, size) in missing.items():
            client.upload(digest, path, _counting(report, sent, total))
            sent += size
    if client.info.active_bundle != bundle.bundle_id:
        with stages.stage("verify, self-test, activate") as report:
            release = release_for(bundle, client.info)
            client.activate(bundle.bundle_id, lambda _, done, of: report(done, of), release=release)
    return sent


def _counting(report: Report, before: int, total: int) -> Callable[[int, int], None]:
    """Progress of one blob as progress of all, in kB."""

    def tell(done: int, _: int) -> None:
        report((before + done) // 1000, total // 1000)

    return tell


def run_jobs(client: Client, jobs: Sequence[Job], shape: tuple[int, int, int], stages: Stages) -> list[Outcome]:
    """Hand all jobs over, as many at once as the device has slots for, and wait for their ends.

    Raises:
        JobFailed: one of them ended without a result.
    """
    requests = {new_job_id(): job for job in jobs}
    steps: dict[str, tuple[int, int]] = {}
    results: dict[str, Result] = {}
    with stages.stage("run the jobs (steps)") as report:
        for job_id, job in requests.items():
            client.submit(_request(job_id, job))
        for event in client.events(set(requests)):
            match event:
                case Progress():
                    steps[event.job_id] = (event.step, event.of)
                    known = sum(of for _, of in steps.values())
                    report(sum(step for step, _ in steps.values()), known * len(requests) // max(1, len(steps)))
                case Result():
                    results[event.job_id] = event
                case Failure():
                    job = requests[event.job_id]
                    raise JobFailed(event.code, event.message, where=f"job {job.title}", mend="see the device's log")
    return [_outcome(requests[job_id], results[job_id], shape) for job_id in requests]


def _request(job_id: str, job: Job) -> JobRequest:
    conditions = to_bytes(job.conditions)
    if job.image is None:
        return JobRequest(job_id, "generate", {"seed": job.seed}, conditions)
    params = {"seed": job.seed, "start": job.start, "dtype": "uint8"}
    return JobRequest(job_id, "inspect", params, job.image.tobytes() + conditions)


def _outcome(job: Job, result: Result, shape: tuple[int, int, int]) -> Outcome:
    values = np.frombuffer(result.payload, "<f4")
    size = int(np.prod(shape))
    x = values[:size].reshape(shape)
    anomalies = values[size:].reshape(shape[1:]) if result.meta["map"] else None
    return Outcome(job, x, anomalies, result.meta)
