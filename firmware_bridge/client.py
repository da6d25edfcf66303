"""The host end of the bridge: `Client`, a blocking API over `host.HostEndpoint`. A thread (channel.py) keeps it going.

A session that is lost while the line is still there (the supervisor restarted, the cable was out for a moment), and a
port that was unplugged and came back, are opened anew; uploads go on where the device says they stand, jobs are
submitted again under the same ids, which the device runs only once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from firmware_bridge import limits
from firmware_bridge.channel import Channel
from firmware_bridge.closing import Closing
from firmware_bridge.errors import LinkError, LocalProtocolError
from firmware_bridge.host import operations
from firmware_bridge.host.answers import job_error
from firmware_bridge.host.task import Ask, Operation, Task
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import Failure, JobEvent, JobRequest, Preview, Progress, Result, UnderWay
from firmware_bridge.link.base import Link
from firmware_bridge.link.identity import reopener
from firmware_bridge.link.security import secured
from firmware_bridge.link.serial import DEFAULT_BAUD, open_port
from firmware_bridge.transfer import Source, digest_bytes
from firmware_bridge.wire import messages
from firmware_bridge.wire.rate import offered
from firmware_bridge.wire.secure import Security
from firmware_bridge.wire.states import Role

UploadProgress = Callable[[int, int], None]
"""(bytes of the blob on the device or on their way, bytes of the blob)"""
StageProgress = Callable[[str, int, int], None]
"""(stage, done, of)"""

T = TypeVar("T")


@dataclass(frozen=True)
class UploadReport:
    """What an upload took, by all sessions together.

    Args:
        size: bytes of the blob.
        chunks: bytes of the chunks that were sent, before compression.
        sent: bytes that they took on the line, their list among them.
    """

    size: int
    chunks: int
    sent: int


class Client(Closing):
    """A session with one device; use it as a context manager. Leaving it cancels the jobs that have not ended.

    Methods may be called from several threads. Every wait has a timeout, counted from the last sign of progress, and
    Ctrl-C gets through every one.

    Args:
        link: an open link; the client closes it.
        connect_timeout: seconds for the device to answer the opening, also after a link was lost.
        reopen: opens the link again after it went away; None: it is gone for good.
        baud: bits a second that it was opened at, where that means something.
        security: makes this end's TLS; None: none is wanted.

    Raises:
        LinkError: nobody answers, or the link is lost for good.
        PeerError: with TLS, one of the two does not believe the other.
        DeviceRefused: without TLS, the device wants it.
        RemoteProtocolError: the device speaks another version of the protocol.
    """

    def __init__(
        self,
        link: Link,
        *,
        connect_timeout: float = 20.0,
        reopen: Callable[[], Link] | None = None,
        baud: int = 0,
        security: Security | None = None,
    ) -> None:
        self._channel = Channel(link, connect_timeout=connect_timeout, reopen=reopen, baud=baud, security=security)
        self._endpoint = self._channel.endpoint
        try:
            self._do(_connected)
        except BaseException:
            self._channel.close()
            raise

    @classmethod
    def open(cls, port: str = "auto", *, baud: int = DEFAULT_BAUD, connect_timeout: float = 20.0) -> Client:
        """Open a port and connect. A port that is unplugged and comes back is found by what is plugged in, not by name.

        Args:
            port: "auto", a path, tls:// before either of them, socket://HOST:PORT or tls://HOST:PORT.
            baud: bits a second; means nothing on a pty, a USB gadget or a socket.
            connect_timeout: seconds for the device to answer the opening.

        Raises:
            PortError: none, several, missing, taken, not permitted; with TLS, no certificates, or PeerError.
            LinkError: nobody answers.
        """
        name, security = secured(port, Role.HOST)
        link = open_port(name, baud)
        again = reopener(link.name, baud)
        client = cls(link, connect_timeout=connect_timeout, reopen=again, baud=baud, security=security)
        most = offered(client.info.capabilities)
        if link.bytes_per_second is not None and most > baud:
            client.speed_up(most)
        return client

    # ------------------------------------------------------------------ the device

    @property
    def info(self) -> DeviceInfo:
        """What the device said in the last hello."""
        assert self._endpoint.info is not None, "a client is connected once before it is made"
        return self._endpoint.info

    def refresh(self) -> DeviceInfo:
        """Ask the device again (free storage, active bundle)."""
        info = self._do(operations.greet)
        with self._channel.changed:
            self._endpoint.info = info
        return info

    def speed_up(self, baud: int) -> bool:
        """Take both ends of a UART to another rate. Whether it works there; if not, both are back where they were.

        Raises:
            DeviceRefused: its UART cannot.
            LinkError: the link is lost for good.
        """
        self._do(operations.request(partial(messages.ChangeRate, baud=baud), messages.Done))
        channel = self._channel
        with channel.changed:
            failed = channel.rate.failed
            channel.rate.want(baud)
        channel.wait_until(lambda: channel.rate.is_settled, limits.REPLY_TIMEOUT)
        return channel.rate.failed == failed and channel.rate.baud == baud

    def console(self) -> str:
        """Text that came on the line outside frames, and the device's log, since last asked."""
        with self._channel.changed:
            return self._endpoint.take_console()

    def counters(self) -> dict[str, int]:
        """Packets "sent" and "retransmitted" in this session, frames "damaged" on the way here."""
        with self._channel.changed:
            sending = self._endpoint.connection.session.sending
            return {
                "sent": sending.sent,
                "retransmitted": sending.retransmitted,
                "damaged": self._endpoint.connection.damaged,
            }

    # ------------------------------------------------------------------ blobs and bundles

    def has(self, digests: Iterable[str]) -> set[str]:
        """Those of the digests (SHA-256, hex) that the device holds, complete."""
        wanted = sorted({digest_bytes(digest) for digest in digests})
        found: set[str] = set()
        for at in range(0, len(wanted), limits.MAX_QUERY):
            query = partial(messages.QueryBlobs, digests=tuple(wanted[at : at + limits.MAX_QUERY]))
            found.update(digest.hex() for digest in self._do(operations.request(query, messages.BlobsReply)).present)
        return found

    def upload(self, digest: str, source: bytes | Path, on_progress: UploadProgress | None = None) -> UploadReport:
        """Bring a blob to the device: those of its chunks that the device does not have.

        Args:
            digest: SHA-256 of the blob, 64 lower-case hex digits.
            source: its bytes, or the file that holds them.
            on_progress: called now and then, in this thread.

        Raises:
            DeviceRefused: no space, wrong hash, storage failed.
            LinkError: the link is lost for good.
        """
        blob = Source(digest, source)
        count = operations.UploadCount()
        self._do(operations.upload(blob, count, lambda: self.info.capabilities), "upload", on_progress)
        if on_progress is not None:
            on_progress(blob.size, blob.size)
        return UploadReport(blob.size, count.chunks, count.sent)

    def activate(self, bundle_id: str, on_progress: StageProgress | None = None, *, release: bytes = b"") -> None:
        """Verify, self-test and activate a bundle whose blobs are on the device.

        Args:
            bundle_id: SHA-256 of its manifest.
            on_progress: called with (stage, done, of), in this thread.
            release: the signed statement that it may run there (release.py); empty where nobody signs.

        Raises:
            DeviceRefused: it did not pass, or the release does not allow it; the former bundle stays active.
            LinkError: the link is lost for good, or the device said nothing for limits.ACTIVATION_TIMEOUT seconds.
        """
        self._do(operations.activate(digest_bytes(bundle_id), release), on_note=on_progress)

    def confirm(self, bundle_id: str) -> None:
        """Tell the device that its active bundle works; a good job tells it as well.

        Raises:
            DeviceRefused: another bundle is active.
        """
        digest = digest_bytes(bundle_id)
        self._do(operations.request(lambda number: messages.Confirm(number, digest), messages.Done))

    # ------------------------------------------------------------------ jobs

    def submit(self, job: JobRequest) -> None:
        """Hand a job over; what becomes of it comes from `events`.

        Raises:
            JobInputError: parameters or payload are wrong.
            DeviceRefused: busy, no active bundle, unknown kind.
            LocalProtocolError: the id is in flight, too many jobs are, or the job is not what a message may hold.
        """
        with self._channel.changed:
            task = self._endpoint.submit(job)
        try:
            self._finish(task)
        except BaseException:
            with self._channel.changed:
                self._endpoint.tracker.drop(job.job_id)
            raise

    def events(self, job_ids: Collection[str] | None = None, *, timeout: float = 600.0) -> Iterator[JobEvent]:
        """Progress, Result and Failure of submitted jobs as they come; ends when these jobs have ended.

        Args:
            job_ids: of which jobs; None: of all.
            timeout: seconds between two events at most (LinkError).
        """
        while (event := self._next_event(job_ids, timeout)) is not None:
            yield event

    def poll_event(self, timeout: float) -> JobEvent | None:
        """The next event of any job, or None when none came in time. The device keeps a job's end until `taken`.

        Args:
            timeout: seconds.

        Raises:
            LinkError: the link is lost for good, or no session could be had since the last call.
        """
        found: list[JobEvent] = []
        with self._channel.changed:
            outages = self._endpoint.outages

        def ready() -> bool:
            event = self._endpoint.take_event(None)
            if event is not None:
                found.append(event)
            return bool(found) or self._endpoint.outages != outages

        if self._channel.wait_until(ready, timeout) and not found and self._endpoint.outage is not None:
            raise self._endpoint.outage
        return found[0] if found else None

    def taken(self, job_id: str) -> None:
        """The caller has the end of a job from `poll_event`, safely: the device need not keep it."""
        with self._channel.changed, contextlib.suppress(LocalProtocolError):  # else it keeps it until it needs the room
            self._endpoint.taken(job_id)
            self._channel.rouse()

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
                case Preview():
                    continue
                case Result():
                    return event
                case Failure():
                    raise job_error(event)
        raise AssertionError("a job ends in a result or a failure")

    def cancel(self, job_id: str) -> None:
        """Stop a job; its Failure(CANCELLED) comes from `events`. Unknown or ended: nothing happens."""
        self._do(operations.request(lambda number: messages.Cancel(number, job_id), messages.Done))

    # ------------------------------------------------------------------ leaving

    def close(self, *, cancel: bool = True) -> None:
        """Say good-bye and close the link. Takes about a second at most; twice is fine.

        Args:
            cancel: stop the jobs that have not ended; else they go on, and whoever submits them again gets their ends.
        """
        with self._channel.changed:
            # Where no session is open nobody is left to tell: the device decides over orphans.
            if cancel and self._endpoint.connection.is_open:
                for job_id in self._endpoint.tracker.in_flight():
                    self._tell_cancel(job_id)
        self._channel.close()

    # ------------------------------------------------------------------ inside

    def _do(self, make: Callable[[Ask], Operation[T]], lane: str = "", on_note: Callable[..., None] | None = None) -> T:
        with self._channel.changed:
            return self._finish(self._endpoint.start(make, lane), on_note)

    def _finish(self, task: Task[T], on_note: Callable[..., None] | None = None) -> T:
        """Wait for a task's end; what it notes meanwhile is shown in this thread, without holding the lock."""
        channel = self._channel
        try:
            while True:
                channel.wait_until(lambda: task.is_done or bool(task.notes))
                with channel.changed:
                    notes: list[Any] = [task.notes.popleft() for _ in range(len(task.notes))]
                    channel.rouse()
                for note in notes:
                    if on_note is not None:
                        on_note(*note)
                if task.is_done and not task.notes:
                    return task.outcome()
        finally:
            with channel.changed:
                self._endpoint.drop(task)

    def _tell_cancel(self, job_id: str) -> None:
        self._endpoint.start(operations.tell(lambda number: messages.Cancel(number, job_id)))

    def _next_event(self, job_ids: Collection[str] | None, timeout: float) -> JobEvent | None:
        found: list[JobEvent] = []
        with self._channel.changed:
            outages = self._endpoint.outages

        def ready() -> bool:
            event = self._endpoint.take_event(job_ids)
            if event is not None:
                found.append(event)
            return bool(found) or not self._endpoint.tracker.expects(job_ids) or self._endpoint.outages != outages

        if not self._channel.wait_until(ready, timeout):
            raise LinkError(f"waited {timeout:g} s for a job's next step", where=self._channel.where)
        if found:
            if not isinstance(found[0], UnderWay):
                self.taken(found[0].job_id)
            return found[0]
        if self._endpoint.outages != outages and self._endpoint.outage is not None:
            raise self._endpoint.outage
        return None


def _connected(ask: Ask) -> Operation[None]:  # noqa: ARG001  an operation like any other
    """Nothing but a session."""
    return
    yield
