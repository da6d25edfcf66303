"""A device for the simulation whose store, journal and standing are the supervisor's own; only its engine is a toy.

Replay: `python -m firmware_bridge.testing simulate --seed N --machine tests.simulation.device:StoredMachine`.
A bundle is one blob, its manifest, without further files; a job is an echo whose steps take 50 ms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from boards.errors import KitError
from edge.device import records
from edge.device.answers import refusal
from edge.device.errors import Busy, NoActiveBundle, SelfTestFailed, UnknownBundle
from edge.device.intake import Intake
from edge.device.journal import Journal, Outcome
from edge.device.requests import request_bytes, request_from
from edge.device.standing import StandingFile, Trust
from edge.device.store import ListedFile, Store
from firmware_bridge.errors import DeviceRefused
from firmware_bridge.handler import Outbox
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import Failure, JobRequest, Progress, Result
from firmware_bridge.testing.disk import MemoryDisk
from firmware_bridge.wire.messages import FailureCode, RefusalCode

STEP_SECONDS = 0.05
BUDGET = 1 << 20
SLOTS = 4


@dataclass(frozen=True)
class Bare:
    """The listing of a bundle that is its manifest alone."""

    files: Sequence[ListedFile] = ()


class StoredDevice:
    """Implements ``DeviceHandler`` on the supervisor's own storage."""

    def __init__(self, disk: MemoryDisk, boot_id: str, clock: Callable[[], float]) -> None:
        self._boot_id = boot_id
        self._files = Store(disk, BUDGET)
        self._standing = StandingFile(disk)
        self._journal = Journal(disk, clock)
        self.store = Intake(self._files.blobs)
        self._outbox: Outbox | None = None
        self._next_step = 0.0
        self._boot_bundle()
        self._running: dict[str, tuple[JobRequest, int]] = {}
        for unfinished in self._journal.unfinished():
            if unfinished.request is None:
                self._journal.finish(unfinished.job_id, Outcome(FailureCode.INTERNAL, "its request is lost"))
                continue
            self._journal.start(unfinished.job_id)
            self._running[unfinished.job_id] = (request_from(unfinished.job_id, unfinished.request), 0)

    def _boot_bundle(self) -> None:
        for bundle_id in self._standing.now.ids:
            try:
                self._files.verify(bundle_id, Bare())
            except KitError:
                continue
            self._files.install(bundle_id, Bare(), b"")
            self._standing.save(self._standing.now.fallen_back(bundle_id))
            return

    def attach(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def describe(self) -> DeviceInfo:
        active = next(iter(self._standing.now.ids), None)
        free = self._files.blobs.free()
        return DeviceInfo("testing/1", "stored", self._boot_id, "toy", {}, SLOTS, 1 << 20, free, active)

    def session_opened(self) -> None:
        pass

    def session_closed(self) -> None:
        pass

    def activate(self, request: int, bundle_id: str, release: bytes) -> None:
        assert self._outbox is not None
        try:
            self._activate(bundle_id, release)
        except KitError as error:
            raise refusal(error) from error
        self._outbox.activated(request, bundle_id)

    def _activate(self, bundle_id: str, release: bytes) -> None:
        manifest = self._files.manifest(bundle_id)
        if manifest is None:
            raise UnknownBundle("no such bundle", where=bundle_id)
        self._files.verify(bundle_id, Bare())
        if manifest.startswith(b"bad"):
            raise SelfTestFailed("the golden output differs", where=bundle_id)
        self._files.install(bundle_id, Bare(), release)
        self._standing.save(self._standing.now.activated(bundle_id, 0, 0))
        self._files.keep({each: Bare() for each in self._standing.now.ids})

    def confirm(self, bundle_id: str) -> None:
        if bundle_id != next(iter(self._standing.now.ids), None):
            raise DeviceRefused(RefusalCode.UNKNOWN_BUNDLE, "another bundle is active")
        self._standing.save(self._standing.now.marked(Trust.GOOD))

    def submit(self, job: JobRequest) -> None:
        request = request_bytes(job)
        try:
            if self._journal.knows(job.job_id):
                if not self._journal.same(job.job_id, request):
                    raise DeviceRefused(RefusalCode.BAD_INPUT, "the id belongs to another job")
                if job.job_id not in self._running:
                    self._say(job.job_id)
                return
            if not self._standing.now.ids:
                raise NoActiveBundle("no bundle is active")
            if len(self._running) >= SLOTS:
                raise Busy("all slots are taken")
            self._journal.accept(job.job_id, request)
        except KitError as error:
            raise refusal(error) from error
        self._journal.start(job.job_id)
        self._running[job.job_id] = (job, 0)

    def cancel(self, job_id: str) -> None:
        if job_id in self._running:
            self._end(job_id, Outcome(FailureCode.CANCELLED, "cancelled"))

    def forget(self, job_id: str) -> None:
        self._journal.taken(job_id)

    def wake_files(self) -> Sequence[int]:
        return ()

    def advance(self, now: float) -> float | None:
        assert self._outbox is not None
        if not self._running:
            return None
        if now < self._next_step:
            return self._next_step
        for job_id, (job, done) in list(self._running.items()):
            if self._outbox.connected() and self._outbox.room() == 0:
                return None
            steps = job.params["steps"]
            assert isinstance(steps, int)
            if done < steps:
                self._running[job_id] = (job, done + 1)
                self._outbox.progress(Progress(job_id, done + 1, steps))
            else:
                self._end(job_id, Outcome(payload=job.payload[::-1]))
        self._next_step = now + STEP_SECONDS
        return self._next_step

    def _end(self, job_id: str, outcome: Outcome) -> None:
        del self._running[job_id]
        self._journal.finish(job_id, outcome)
        self._say(job_id)

    def _say(self, job_id: str) -> None:
        assert self._outbox is not None
        outcome = self._journal.outcome(job_id)
        if outcome is None:
            self._outbox.failure(Failure(job_id, FailureCode.INTERNAL, "the outcome is no longer kept"))
        elif outcome.failure:
            self._outbox.failure(Failure(job_id, outcome.failure, outcome.message))
        else:
            self._outbox.result(Result(job_id, outcome.meta, outcome.payload))


class StoredMachine:
    """A ``firmware_bridge.testing.simulation.Machine``."""

    def boot(self, disk: MemoryDisk, boot_id: str, clock: Callable[[], float]) -> StoredDevice:
        return StoredDevice(disk, boot_id, clock)

    def audit(self, disk: MemoryDisk) -> list[str]:
        """Blobs hash to their names, what stands in ``active`` is readable, and one of its bundles can be run."""
        if "blobs" not in disk.names(""):
            return []
        contents = {name: disk.read(f"blobs/{name}") for name in disk.names("blobs") if len(name) == 64}
        wrong = [
            f"blob {name[:12]} is damaged"
            for name, data in contents.items()
            if hashlib.sha256(data).hexdigest() != name
        ]
        if disk.size("active") is not None:
            document = records.decode(disk.read("active"))
            if document is None:
                wrong.append("the file that names the active bundle is damaged")
            elif document["bundles"]:
                first = contents.get(document["bundles"][0][0])
                if first is None:
                    wrong.append("the active bundle is not there")
                elif first.startswith(b"bad"):
                    wrong.append("the active bundle failed its test")
        return wrong

    def finished(self, disk: MemoryDisk) -> Mapping[str, int]:
        """By the journal's records."""
        known: dict[str, int] = {}
        data = b"" if disk.size("journal") is None else disk.read("journal")
        for line in data.splitlines(keepends=True):
            record = records.decode(line)
            if record is not None:
                known[record["job"]] = known.get(record["job"], 0) + (record["event"] == "finished")
        return known

    def expected(self, payload: bytes) -> bytes:
        return payload[::-1]
