"""The host end of the bridge: `Client`, a blocking API. One thread of its own keeps the link alive (channel.py).

A session that is lost while the line is still there (the supervisor restarted, the cable was out for a moment) is
opened anew by the operation that notices; uploads go on where the device says they stand, jobs are submitted again
under the same ids, which the device runs only once.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from firmware_bridge import limits
from firmware_bridge.errors import DeviceRefused, JobInputError, LinkError, SessionLost
from firmware_bridge.exchange import Exchange, expect, job_error
from firmware_bridge.info import AGENT, DeviceInfo
from firmware_bridge.jobs import Failure, JobEvent, JobRequest, Progress, Result
from firmware_bridge.link.base import Link
from firmware_bridge.link.serial import DEFAULT_BAUD, open_port
from firmware_bridge.tracker import JobTracker
from firmware_bridge.transfer import Source, digest_bytes
from firmware_bridge.wire import messages
from firmware_bridge.wire.messages import FailureCode

UploadProgress = Callable[[int, int], None]
"""(bytes of the blob on the device or on their way, bytes of the blob)"""
StageProgress = Callable[[str, int, int], None]
"""(stage, done, of)"""

T = TypeVar("T")
M = TypeVar("M", bound=messages.Reply)


@dataclass(frozen=True)
class UploadReport:
    """What an upload took.

    Args:
        sent: bytes of the blob sent, by all sessions together.
        resumed_at: offset at which it began; the blob's size if the device had it already.
    """

    sent: int
    resumed_at: int


class Client:
    """A session with one device; use it as a context manager. Leaving it cancels the jobs that have not ended.

    Methods may be called from several threads. Every wait has a timeout, counted from the last sign of progress, and
    Ctrl-C gets through every one.

    Args:
        link: an open link; the client closes it.
        connect_timeout: seconds for the device to answer the opening.

    Raises:
        LinkError: nobody answers, or the link is lost for good.
        RemoteProtocolError: the device speaks another version of the protocol.
    """

    def __init__(self, link: Link, *, connect_timeout: float = 20.0) -> None:
        self._connect_timeout = connect_timeout
        self._connecting = threading.RLock()
        self._submitting = threading.Lock()
        self._uploading = threading.Lock()
        self._tracker = JobTracker()
        self._generation = 0
        self._exchange = Exchange(link, self._tracker.receive)
        self._channel = self._exchange.channel
        try:
            self._info = self._connect()
        except BaseException:
            self._channel.close()
            raise

    @classmethod
    def open(cls, port: str = "auto", *, baud: int = DEFAULT_BAUD, connect_timeout: float = 20.0) -> Client:
        """Open a port and connect.

        Args:
            port: "auto", a path, or socket://HOST:PORT.
            baud: bits a second; means nothing on a pty, a USB gadget or a socket.
            connect_timeout: seconds for the device to answer the opening.

        Raises:
            PortError: none, several, missing, taken, not permitted.
            LinkError: nobody answers.
        """
        return cls(open_port(port, baud), connect_timeout=connect_timeout)

    # ------------------------------------------------------------------ the device

    @property
    def info(self) -> DeviceInfo:
        """What the device said in the last hello."""
        return self._info

    def refresh(self) -> DeviceInfo:
        """Ask the device again (free storage, active bundle)."""
        self._info = self._recovering(self._hello)
        return self._info

    def console(self) -> str:
        """Text that came on the line outside frames, and the device's log, since last asked."""
        return self._exchange.take_console()

    def counters(self) -> dict[str, int]:
        """Packets "sent" and "retransmitted" in this session, frames "damaged" on the way here."""
        return self._channel.counters()

    # ------------------------------------------------------------------ blobs and bundles

    def has(self, digests: Iterable[str]) -> set[str]:
        """Those of the digests (SHA-256, hex) that the device holds, complete."""
        wanted = sorted({digest_bytes(digest) for digest in digests})
        found: set[str] = set()
        for at in range(0, len(wanted), limits.MAX_QUERY):
            query = partial(messages.QueryBlobs, digests=tuple(wanted[at : at + limits.MAX_QUERY]))
            found.update(digest.hex() for digest in self._ask(query, messages.BlobsReply).present)
        return found

    def upload(self, digest: str, source: bytes | Path, on_progress: UploadProgress | None = None) -> UploadReport:
        """Bring a blob to the device, from the offset that it already has.

        Args:
            digest: SHA-256 of the blob, 64 lower-case hex digits.
            source: its bytes, or the file that holds them.
            on_progress: called now and then, in this thread.

        Raises:
            DeviceRefused: no space, wrong hash, storage failed.
            LinkError: the link is lost for good.
        """
        blob = Source(digest, source)
        offsets: list[int] = []
        sent = 0

        def once(generation: int) -> None:
            nonlocal sent
            with self._exchange.request(generation) as answers:
                answers.post(messages.BeginUpload(answers.number, blob.digest, blob.size))
                reply = answers.wait(limits.REPLY_TIMEOUT)
                if not isinstance(reply, messages.UploadReady):
                    expect(reply, messages.BlobStored)
                    offsets.append(blob.size)
                    return
                offsets.append(reply.offset)
                for chunk in blob.chunks(answers.number, reply.offset):
                    if answers.ready():  # a refusal, or the end before all was sent: `wait` says which
                        break
                    answers.post(chunk, limits.UPLOAD_TIMEOUT)
                    sent += len(chunk.data)
                    if on_progress is not None:
                        on_progress(chunk.offset + len(chunk.data), blob.size)
                expect(answers.wait(limits.UPLOAD_TIMEOUT), messages.BlobStored)

        with self._uploading:
            self._recovering(once)
        if on_progress is not None:
            on_progress(blob.size, blob.size)
        return UploadReport(sent, offsets[0])

    def activate(self, bundle_id: str, on_progress: StageProgress | None = None) -> None:
        """Verify, self-test and activate a bundle whose blobs are on the device.

        Raises:
            DeviceRefused: it did not pass; the former bundle stays active.
            LinkError: the link is lost for good, or the device said nothing for limits.ACTIVATION_TIMEOUT seconds.
        """
        digest = digest_bytes(bundle_id)

        def once(generation: int) -> None:
            with self._exchange.request(generation) as answers:
                answers.post(messages.Activate(answers.number, digest))
                while isinstance(reply := answers.wait(limits.ACTIVATION_TIMEOUT), messages.ActivationProgress):
                    if on_progress is not None:
                        on_progress(reply.stage, reply.done, reply.of)
                expect(reply, messages.Activated)

        self._recovering(once)

    # ------------------------------------------------------------------ jobs

    def submit(self, job: JobRequest) -> None:
        """Hand a job over; what becomes of it comes from `events`.

        Raises:
            JobInputError: parameters or payload are wrong.
            DeviceRefused: busy, no active bundle, unknown kind.
            LocalProtocolError: the id is in flight, too many jobs are, or the job is not what a message may hold.
        """
        with self._channel.changed:
            self._tracker.add(job)
        try:
            self._recovering(lambda generation: self._submit_once(generation, job))
        except BaseException:
            with self._channel.changed:
                self._tracker.drop(job.job_id)
            raise

    def events(self, job_ids: Collection[str] | None = None, *, timeout: float = 600.0) -> Iterator[JobEvent]:
        """Progress, Result and Failure of submitted jobs as they come; ends when these jobs have ended.

        Args:
            job_ids: of which jobs; None: of all.
            timeout: seconds between two events at most (LinkError).
        """
        while (
            event := self._recovering(lambda generation: self._next_event(generation, job_ids, timeout))
        ) is not None:
            yield event

    def run(
        self, job: JobRequest, on_progress: Callable[[Progress], None] | None = None, *, timeout: float = 600.0
    ) -> Result:
        """Submit one job and wait for its result.

        Raises:
            JobFailed: it ended without a result; JobInputError if its input was the reason.
            DeviceRefused, LocalProtocolError, LinkError: as `submit` and `events`.
        """
        self.submit(job)
        for event in self.events({job.job_id}, timeout=timeout):
            match event:
                case Progress():
                    if on_progress is not None:
                        on_progress(event)
                case Result():
                    return event
                case Failure():
                    raise job_error(event)
        raise AssertionError("a job ends in a result or a failure")

    def cancel(self, job_id: str) -> None:
        """Stop a job; its Failure(CANCELLED) comes from `events`. Unknown or ended: nothing happens."""
        self._ask(partial(messages.Cancel, job_id=job_id), messages.Done)

    # ------------------------------------------------------------------ leaving

    def close(self) -> None:
        """Cancel what has not ended, say good-bye, close the link. Takes about a second at most; twice is fine."""
        try:
            with self._channel.changed:
                jobs = self._tracker.in_flight()
            with contextlib.suppress(LinkError):  # nobody is left to tell: the device decides over orphaned jobs
                for job_id in jobs:
                    self._exchange.tell(self._generation, partial(messages.Cancel, job_id=job_id))
        finally:
            self._channel.close()

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
        self.close()

    # ------------------------------------------------------------------ sessions

    def _recovering(self, operation: Callable[[int], T]) -> T:
        """Do it in the session there is; where that is lost, in a new one."""
        for _ in range(limits.RECONNECTIONS):
            generation = self._generation
            try:
                return operation(generation)
            except SessionLost:
                with self._connecting:
                    if self._generation == generation:
                        self._info = self._connect()
        return operation(self._generation)

    def _connect(self) -> DeviceInfo:
        """Open a session, greet, and submit again what was in flight."""
        with self._connecting:
            for attempt in count(1):
                generation = self._channel.open_session(self._connect_timeout)
                try:
                    info = self._hello(generation)
                    self._generation = generation
                    with self._channel.changed:
                        jobs = self._tracker.accepted()
                    for job in jobs:
                        self._resubmit(generation, job)
                except SessionLost:
                    if attempt >= limits.RECONNECTIONS:
                        raise
                else:
                    return info
            raise AssertionError("the attempts are counted")

    def _hello(self, generation: int) -> DeviceInfo:
        hello = partial(messages.Hello, protocol=messages.PROTOCOL, agent=AGENT, capabilities=())
        return DeviceInfo.of(expect(self._exchange.ask(generation, hello), messages.HelloReply))

    def _ask(self, request: Callable[[int], messages.HostMessage], kind: type[M]) -> M:
        return self._recovering(lambda generation: expect(self._exchange.ask(generation, request), kind))

    def _resubmit(self, generation: int, job: JobRequest) -> None:
        try:
            self._submit_once(generation, job)
        except (DeviceRefused, JobInputError) as error:
            with self._channel.changed:
                self._tracker.fail(job.job_id, FailureCode.LOST, f"refused after the session was lost: {error.what}")

    def _submit_once(self, generation: int, job: JobRequest) -> None:
        with self._submitting, self._exchange.request(generation) as answers:
            answers.post(messages.Submit(answers.number, job.job_id, job.kind, dict(job.params), len(job.payload)))
            for offset in range(0, len(job.payload), limits.CHUNK):
                if answers.ready():
                    break
                data = job.payload[offset : offset + limits.CHUNK]
                answers.post(messages.JobPayload(answers.number, offset, data), limits.UPLOAD_TIMEOUT)
            expect(answers.wait(limits.UPLOAD_TIMEOUT), messages.Done)
            with self._channel.changed:
                self._tracker.accept(job.job_id)

    def _next_event(self, generation: int, job_ids: Collection[str] | None, timeout: float) -> JobEvent | None:
        found: list[JobEvent] = []

        def ready() -> bool:
            event = self._tracker.take(job_ids)
            if event is not None:
                found.append(event)
            return event is not None or not self._tracker.expects(job_ids)

        self._channel.wait_for(ready, generation, timeout, "a job's next step")
        if not found:
            return None
        if not isinstance(found[0], Progress):
            with contextlib.suppress(LinkError):  # the device keeps it until it needs the room; ours is whole
                self._channel.post(messages.Taken(found[0].job_id), generation, limits.REPLY_TIMEOUT)
        return found[0]
