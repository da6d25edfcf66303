"""A small device with a disk: what the protocol asks of any device, and no more. The real one is in edge.device.

On the disk: `blobs/`, `staging/` (parts and their lists), `active` (a bundle's digest), `journal` (a line a record,
each with its checksum), `ends/` (results kept until the host has them).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence

from firmware_bridge.errors import DeviceRefused
from firmware_bridge.handler import Outbox
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import Failure, JobRequest, Progress, Result
from firmware_bridge.testing.disk import MemoryDisk
from firmware_bridge.wire.messages import FailureCode, RefusalCode

_STEP_SECONDS = 0.05
_FOLDERS = ("blobs", "staging", "ends")


class DiskStore:
    """A `BlobStore` on a disk.

    Args:
        disk: with its folders made.
    """

    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk

    def has(self, digest: str) -> bool:
        """Whether the blob is there, complete."""
        return self._disk.size(f"blobs/{digest}") is not None

    def reserve(self, digest: str, size: int) -> None:
        """DeviceRefused(NO_SPACE) if a blob of this size does not fit."""
        if size > self._disk.free():
            raise DeviceRefused(RefusalCode.NO_SPACE, f"blob {digest[:12]} does not fit, {size} bytes")

    def read_index(self, digest: str) -> bytes:
        """The staged list."""
        return self.read(f"{digest}.index", 0, -1)

    def append_index(self, digest: str, offset: int, data: bytes) -> None:
        """Add bytes to the staged list."""
        name = f"staging/{digest}.index"
        if offset == 0 and self._disk.size(name) is not None:
            self._disk.remove(name)
        self._disk.write(name, offset, data)

    def read(self, digest: str, offset: int, size: int) -> bytes:
        """Bytes of the staged blob."""
        name = f"staging/{digest}"
        return b"" if self._disk.size(name) is None else self._disk.read(name, offset, size)

    def write(self, digest: str, offset: int, data: bytes) -> None:
        """Put bytes of the staged blob in their place."""
        self._disk.write(f"staging/{digest}", offset, data)

    def commit(self, digest: str) -> None:
        """The staged blob is complete: bytes first, then the name."""
        self._disk.sync(f"staging/{digest}")
        self._disk.rename(f"staging/{digest}", f"blobs/{digest}")
        self._disk.sync("blobs")
        self._disk.sync("staging")

    def discard(self, digest: str) -> None:
        """Throw the staged blob away."""
        for name in (f"staging/{digest}", f"staging/{digest}.index"):
            if self._disk.size(name) is not None:
                self._disk.remove(name)

    def blobs(self) -> Sequence[str]:
        """The complete blobs."""
        return self._disk.names("blobs")

    def blob_index(self, digest: str) -> bytes:
        """The list of a complete blob."""
        return self.read_index(digest)

    def read_blob(self, digest: str, offset: int, size: int) -> bytes:
        """Bytes of a complete blob."""
        return self._disk.read(f"blobs/{digest}", offset, size)


class DiskDevice:
    """A `DeviceHandler` whose state is on a disk; jobs are echoes, a step every 50 ms of virtual time.

    Args:
        disk: the disk.
        boot_id: new for each boot.
    """

    def __init__(self, disk: MemoryDisk, boot_id: str) -> None:
        self._disk = disk
        self._boot_id = boot_id
        for folder in _FOLDERS:
            if folder not in disk.names(""):
                disk.make_folder(folder)
        disk.sync("")
        self.store = DiskStore(disk)
        self._known = journal(disk)
        good = sum(len(line) for line in _lines(disk))
        if (size := disk.size("journal")) is not None and size > good:
            disk.cut("journal", good)
            disk.sync("journal")
        self._running: dict[str, tuple[JobRequest, int]] = {}
        self._outbox: Outbox | None = None
        self._next_step = 0.0

    @property
    def active(self) -> str | None:
        """The active bundle's digest."""
        return active(self._disk)

    def attach(self, outbox: Outbox) -> None:
        """How to speak to the host."""
        self._outbox = outbox

    def describe(self) -> DeviceInfo:
        """Who this device is."""
        return DeviceInfo("testing/1", "disk", self._boot_id, "model", {}, 4, 1 << 20, self._disk.free(), self.active)

    def session_opened(self) -> None:
        """A host has connected."""

    def session_closed(self) -> None:
        """The host is gone."""

    def activate(self, request: int, bundle_id: str, release: bytes) -> None:  # noqa: ARG002  nobody signs here
        """Hash the blob again, test it, and make it the active one, all at once."""
        if not self.store.has(bundle_id):
            raise DeviceRefused(RefusalCode.UNKNOWN_BUNDLE, "no such bundle")
        data = self.store.read_blob(bundle_id, 0, -1)
        if hashlib.sha256(data).hexdigest() != bundle_id:
            self._disk.remove(f"blobs/{bundle_id}")
            raise DeviceRefused(RefusalCode.HASH_MISMATCH, "damaged on the disk")
        if data.startswith(b"bad"):
            raise DeviceRefused(RefusalCode.SELF_TEST, "the golden output differs")
        self._write_file("active", bundle_id.encode())
        assert self._outbox is not None
        self._outbox.activated(request, bundle_id)

    def confirm(self, bundle_id: str) -> None:
        """Nothing to confirm."""

    def submit(self, job: JobRequest) -> None:
        """Take a job: into the journal before the host hears of it."""
        if self.active is None:
            raise DeviceRefused(RefusalCode.NO_ACTIVE_BUNDLE, "no bundle is active")
        if job.job_id in self._running:
            return
        times = self._known.get(job.job_id)
        if times is None:
            self._record("accepted", job.job_id)
        elif times:
            self._say(job.job_id)
            return
        self._running[job.job_id] = (job, 0)

    def cancel(self, job_id: str) -> None:
        """End a job."""
        if job_id in self._running:
            self._finish(job_id, b"cancelled")

    def forget(self, job_id: str) -> None:
        """The host has the end."""
        name = f"ends/{job_id}"
        if self._disk.size(name) is not None:
            self._disk.remove(name)

    def wake_files(self) -> Sequence[int]:
        """None: time is all that this device waits for."""
        return ()

    def advance(self, now: float) -> float | None:
        """A step of each running job every 50 ms, while there is room for their progress."""
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
                self._finish(job_id, b"result" + job.payload[::-1])
        self._next_step = now + _STEP_SECONDS
        return self._next_step

    def _finish(self, job_id: str, end: bytes) -> None:
        del self._running[job_id]
        self._write_file(f"ends/{job_id}", end)
        self._record("finished", job_id)
        self._say(job_id)

    def _say(self, job_id: str) -> None:
        assert self._outbox is not None
        if self._disk.size(f"ends/{job_id}") is None:
            self._outbox.failure(Failure(job_id, FailureCode.INTERNAL, "not kept"))
            return
        end = self._disk.read(f"ends/{job_id}")
        if end.startswith(b"result"):
            self._outbox.result(Result(job_id, {}, end[6:]))
        else:
            self._outbox.failure(Failure(job_id, FailureCode.CANCELLED, "cancelled"))

    def _record(self, what: str, job_id: str) -> None:
        text = f"{what} {job_id}".encode()
        self._disk.write("journal", self._disk.size("journal") or 0, b"%08x %s\n" % (zlib.crc32(text), text))
        self._disk.sync("journal")
        self._disk.sync("")
        self._known[job_id] = self._known.get(job_id, 0) + (what == "finished")

    def _write_file(self, name: str, data: bytes) -> None:
        new = f"{name}.new"
        if self._disk.size(new) is not None:
            self._disk.remove(new)
        self._disk.write(new, 0, data)
        self._disk.sync(new)
        self._disk.rename(new, name)
        self._disk.sync(name.rpartition("/")[0])


class DiskMachine:
    """The kind of device above."""

    def boot(self, disk: MemoryDisk, boot_id: str, clock: Callable[[], float]) -> DiskDevice:  # noqa: ARG002
        """Start it; it is told the time in `advance`."""
        return DiskDevice(disk, boot_id)

    def audit(self, disk: MemoryDisk) -> list[str]:
        """Blobs hash to their names; the active bundle is whole and passed its test."""
        blobs = disk.names("blobs") if "blobs" in disk.names("") else []
        wrong = [
            f"blob {digest[:12]} is damaged"
            for digest in blobs
            if hashlib.sha256(disk.read(f"blobs/{digest}")).hexdigest() != digest
        ]
        bundle = active(disk)
        if bundle is not None:
            name = f"blobs/{bundle}"
            if disk.size(name) is None:
                wrong.append(f"bundle {bundle[:12]} is active and not there")
            elif disk.read(name, 0, 3) == b"bad":
                wrong.append(f"bundle {bundle[:12]} is active and failed its test")
        return wrong

    def finished(self, disk: MemoryDisk) -> Mapping[str, int]:
        """By the journal."""
        return journal(disk)

    def expected(self, payload: bytes) -> bytes:
        """The payload, reversed."""
        return payload[::-1]


def active(disk: MemoryDisk) -> str | None:
    """The active bundle's digest."""
    return None if disk.size("active") is None else disk.read("active").decode()


def journal(disk: MemoryDisk) -> dict[str, int]:
    """How often each job was finished; those accepted and not finished have 0."""
    known: dict[str, int] = {}
    for line in _lines(disk):
        what, job_id = line[9:-1].decode().split(" ")
        known[job_id] = known.get(job_id, 0) + (what == "finished")
    return known


def _lines(disk: MemoryDisk) -> list[bytes]:
    """The journal's lines up to the first that is torn."""
    lines: list[bytes] = []
    data = b"" if disk.size("journal") is None else disk.read("journal")
    for line in data.splitlines(keepends=True):
        if not line.endswith(b"\n") or line[:9] != b"%08x " % zlib.crc32(line[9:-1]):
            break
        lines.append(line)
    return lines
