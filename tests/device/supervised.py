"""A supervisor with a host at the other end: real store, real child engine, an outbox that remembers."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boards import Board
from edge.device.supervisor import Supervisor
from edge.device.surroundings import this_machine
from firmware_bridge.jobs import Failure, JobRequest, Preview, Progress, Result

from .conftest import bring

if TYPE_CHECKING:
    from .conftest import ToyBundle


class Outbox:
    """Remembers what the host is told; ``has_room`` and ``is_connected`` may be switched off."""

    def __init__(self) -> None:
        self.has_room = True
        self.is_connected = True
        self.stages: list[tuple[str, int, int]] = []
        self.activations: dict[int, str | tuple[int, str]] = {}
        self.steps: list[Progress] = []
        self.previews: list[Preview] = []
        self.ends: dict[str, Result | Failure] = {}

    def room(self) -> int:
        return 8 if self.has_room else 0

    def connected(self) -> bool:
        return self.is_connected

    def activation_progress(self, _request: int, stage: str, done: int, of: int) -> None:
        self.stages.append((stage, done, of))

    def activated(self, request: int, bundle_id: str) -> None:
        self.activations[request] = bundle_id

    def refuse(self, request: int, code: int, message: str) -> None:
        self.activations[request] = (code, message)

    def progress(self, progress: Progress) -> bool:
        if self.has_room:
            self.steps.append(progress)
        return self.has_room

    def preview(self, preview: Preview) -> bool:
        self.previews.append(preview)
        return True

    def result(self, result: Result) -> None:
        assert result.job_id not in self.ends
        self.ends[result.job_id] = result

    def failure(self, failure: Failure) -> None:
        assert failure.job_id not in self.ends
        self.ends[failure.job_id] = failure

    def log(self, _text: str) -> None:
        return


class Device:
    """A supervisor with a host at the other end, and what a host does."""

    def __init__(self, root: Path, board: Board, **options: Any) -> None:  # noqa: ANN401  the supervisor's
        self.supervisor = Supervisor(board, this_machine(root, board), **options)
        self.supervisor.start()
        self.outbox = Outbox()
        self.supervisor.attach(self.outbox)
        self.supervisor.session_opened()
        self._request = 0

    def upload(self, bundle: ToyBundle) -> None:
        for data in bundle.blobs.values():
            bring(self.supervisor.store, data)

    def activate(self, bundle_id: str, release: bytes = b"") -> str | tuple[int, str]:
        self._request += 1
        self.supervisor.activate(self._request, bundle_id, release)
        self.until(lambda: self._request in self.outbox.activations)
        return self.outbox.activations[self._request]

    def deploy(self, bundle: ToyBundle) -> None:
        self.upload(bundle)
        assert self.activate(bundle.bundle_id) == bundle.bundle_id

    def run(self, *jobs: JobRequest) -> list[Result | Failure]:
        for job in jobs:
            self.supervisor.submit(job)
        self.until(lambda: all(job.job_id in self.outbox.ends for job in jobs))
        return [self.outbox.ends[job.job_id] for job in jobs]

    def until(self, done: Callable[[], bool], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        self.supervisor.advance(time.monotonic())
        while not done():
            assert time.monotonic() < deadline, "the device did not get there in time"
            select.select(self.supervisor.wake_files(), [], [], 0.2)
            self.supervisor.advance(time.monotonic())


Starter = Callable[..., Device]


def generate(job_id: str, seed: int = 1) -> JobRequest:
    return JobRequest(job_id, "generate", {"seed": seed})


def inspect(job_id: str, payload: bytes, dtype: str = "float32", start: int = 2) -> JobRequest:
    return JobRequest(job_id, "inspect", {"seed": 1, "start": start, "dtype": dtype}, payload)


def image_of(end: Result | Failure) -> bytes:
    assert isinstance(end, Result), end
    return end.payload


def flip(tmp_path: Path, bundle: ToyBundle) -> None:
    """Damage the bundle's program where it lies."""
    digest = next(digest for digest, data in bundle.blobs.items() if data.startswith(b'{"steps"'))
    path = tmp_path / "root" / "blobs" / digest
    data = bytearray(path.read_bytes())
    data[3] ^= 0x10
    path.write_bytes(data)
