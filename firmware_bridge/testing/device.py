"""A device in memory: the whole device side of the bridge without an engine, for tests of hosts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from firmware_bridge.errors import DeviceRefused, JobInputError
from firmware_bridge.handler import Outbox
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import Failure, JobRequest, Preview, Progress, Result
from firmware_bridge.wire.messages import FailureCode, RefusalCode


@dataclass
class MemoryStore:
    """A `BlobStore` in dictionaries; they survive a `MemoryDevice` that is thrown away, as a disk does.

    Args:
        capacity: bytes of all blobs together, staged ones included.
    """

    capacity: int = 1 << 30
    complete: dict[str, bytes] = field(default_factory=dict)
    staged: dict[str, bytearray] = field(default_factory=dict)
    indexes: dict[str, bytes] = field(default_factory=dict)
    """The lists of chunks, of complete blobs and of staged ones."""
    appended: int = 0
    """Bytes of blobs written, ever: what came over the line, or from another blob."""

    def has(self, digest: str) -> bool:
        """Whether the blob is there, complete."""
        return digest in self.complete

    def reserve(self, digest: str, size: int) -> None:
        """DeviceRefused(NO_SPACE) if a blob of this size does not fit."""
        if size - len(self.staged.get(digest, b"")) > self.free():
            raise DeviceRefused(RefusalCode.NO_SPACE, f"{size} bytes do not fit, {self.free()} are free")

    def read_index(self, digest: str) -> bytes:
        """The staged list."""
        return self.indexes.get(digest, b"")

    def append_index(self, digest: str, offset: int, data: bytes) -> None:
        """Add bytes to the staged list."""
        self.indexes[digest] = self.indexes.get(digest, b"")[:offset] + data

    def read(self, digest: str, offset: int, size: int) -> bytes:
        """Bytes of the staged blob."""
        return bytes(self.staged.get(digest, b"")[offset : offset + size])

    def write(self, digest: str, offset: int, data: bytes) -> None:
        """Put bytes of the staged blob in their place."""
        part = self.staged.setdefault(digest, bytearray())
        part.extend(bytes(max(0, offset - len(part))))
        part[offset : offset + len(data)] = data
        self.appended += len(data)

    def commit(self, digest: str) -> None:
        """The staged blob is complete."""
        data = bytes(self.staged.pop(digest))
        assert hashlib.sha256(data).hexdigest() == digest
        self.complete[digest] = data

    def discard(self, digest: str) -> None:
        """Throw the staged blob away."""
        self.staged.pop(digest, None)
        self.indexes.pop(digest, None)

    def blobs(self) -> Sequence[str]:
        """The complete blobs."""
        return list(self.complete)

    def blob_index(self, digest: str) -> bytes:
        """The list of a complete blob."""
        return self.indexes.get(digest, b"")

    def read_blob(self, digest: str, offset: int, size: int) -> bytes:
        """Bytes of a complete blob."""
        return self.complete[digest][offset : offset + size]

    def free(self) -> int:
        """Bytes that still fit."""
        return self.capacity - sum(map(len, self.complete.values())) - sum(map(len, self.staged.values()))


@dataclass
class _Running:
    job: JobRequest
    step: int = 0


class MemoryDevice:
    """A `DeviceHandler` that runs "echo" jobs: `steps` steps each, interleaved; the result is the payload, reversed.

    Params of a job: {"steps": int} (default 3), {"fail": FailureCode} to end that way after the steps.

    Args:
        store: where blobs lie.
        device_id: who it is.
        boot_id: new for each start, as a supervisor's is.
        slots: jobs at a time; more are refused as BUSY.
        between_steps: called before each step with its job's id.
    """

    def __init__(
        self,
        store: MemoryStore | None = None,
        *,
        device_id: str = "memory",
        boot_id: str = "boot-1",
        slots: int = 4,
        between_steps: Callable[[str], None] | None = None,
    ) -> None:
        self.store: MemoryStore = MemoryStore() if store is None else store
        self.active: str | None = None
        self.confirmed: str | None = None
        self.release = b""
        self.started: list[str] = []
        """Ids of the jobs that were started, in order; each once."""
        self.forgotten: list[str] = []
        self.sessions = 0
        self.connected = False
        self.device_id = device_id
        self._boot_id = boot_id
        self._slots = slots
        self._between_steps = between_steps
        self._running: dict[str, _Running] = {}
        self._ended: dict[str, Result | Failure] = {}
        self._outbox: Outbox | None = None

    def attach(self, outbox: Outbox) -> None:
        """How to speak to the host."""
        self._outbox = outbox

    def describe(self) -> DeviceInfo:
        """Who this device is."""
        return DeviceInfo(
            agent="firmware_bridge.testing/0.1.0",
            device_id=self.device_id,
            boot_id=self._boot_id,
            board="memory",
            versions={"kit": "0.1.0", "operators": 1},
            slots=self._slots,
            credits=self._slots - len(self._running),
            memory_bytes=1 << 20,
            storage_free=self.store.free(),
            active_bundle=self.active,
        )

    def session_opened(self) -> None:
        """A host has connected."""
        self.sessions += 1
        self.connected = True

    def session_closed(self) -> None:
        """The host is gone."""
        self.connected = False

    def activate(self, request: int, bundle_id: str, release: bytes) -> None:
        """Activate any blob; one that begins with b"bad" fails its self-test."""
        assert self._outbox is not None
        self.release = release
        blob = self.store.complete.get(bundle_id)
        if blob is None:
            raise DeviceRefused(RefusalCode.UNKNOWN_BUNDLE, f"bundle {bundle_id} is not here")
        self._outbox.activation_progress(request, "self-test", 1, 1)
        if blob.startswith(b"bad"):
            self._outbox.refuse(request, RefusalCode.SELF_TEST, "the golden output differs")
            return
        self.active = bundle_id
        self._outbox.activated(request, bundle_id)

    def confirm(self, bundle_id: str) -> None:
        """Remember the bundle as confirmed."""
        if bundle_id != self.active:
            raise DeviceRefused(RefusalCode.UNKNOWN_BUNDLE, f"bundle {bundle_id} is not active")
        self.confirmed = bundle_id

    def submit(self, job: JobRequest) -> None:
        """Take an echo job."""
        assert self._outbox is not None
        if job.kind != "echo":
            raise DeviceRefused(RefusalCode.UNSUPPORTED, f"no such kind of job: {job.kind}")
        if not isinstance(job.params.get("steps", 3), int):
            raise JobInputError(FailureCode.BAD_INPUT, "steps is a number")
        ended = self._ended.get(job.job_id)
        if ended is not None:
            self._say(ended)
        elif job.job_id not in self._running:
            if len(self._running) >= self._slots:
                raise DeviceRefused(RefusalCode.BUSY, f"all {self._slots} slots are taken")
            self.started.append(job.job_id)
            self._running[job.job_id] = _Running(job)

    def cancel(self, job_id: str) -> None:
        """Stop a job."""
        if job_id in self._running:
            self._end(Failure(job_id, FailureCode.CANCELLED, "cancelled by the host"))

    def forget(self, job_id: str) -> None:
        """The host has the job's end."""
        self._ended.pop(job_id, None)
        self.forgotten.append(job_id)

    def wake_files(self) -> Sequence[int]:
        """None: everything happens in `advance`."""
        return ()

    def advance(self, now: float) -> float | None:
        """One step of each running job, while the host takes the progress."""
        assert self._outbox is not None
        for running in list(self._running.values()):
            if self._outbox.connected() and self._outbox.room() == 0:
                return None
            if self._between_steps is not None:
                self._between_steps(running.job.job_id)
            self._step(running)
        return now if self._running else None

    def _step(self, running: _Running) -> None:
        assert self._outbox is not None
        job = running.job
        steps = job.params.get("steps", 3)
        assert isinstance(steps, int)
        if running.step < steps:
            running.step += 1
            self._outbox.progress(Progress(job.job_id, running.step, steps, passes=1))
            if job.preview_every and running.step % job.preview_every == 0:
                self._outbox.preview(Preview(job.job_id, running.step, steps, (1, 2, 2), bytes([running.step] * 4)))
        elif "fail" in job.params:
            code = job.params["fail"]
            assert isinstance(code, int)
            self._end(Failure(job.job_id, code, "as asked"))
        else:
            self._end(Result(job.job_id, {"steps": steps, "score": 0.5}, job.payload[::-1]))

    def _end(self, ended: Result | Failure) -> None:
        del self._running[ended.job_id]
        self._ended[ended.job_id] = ended
        self._say(ended)

    def _say(self, ended: Result | Failure) -> None:
        assert self._outbox is not None
        if isinstance(ended, Result):
            self._outbox.result(ended)
        else:
            self._outbox.failure(ended)
