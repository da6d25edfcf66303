"""The device end of the bridge: parses what the host sends, calls the handler, sends what the handler says.

Without I/O, clock or threads of its own; `serve` (serve.py) runs it on a link. Nothing in it grows with what the host
sends: requests are taken only while there is room for their answers, one upload and one submission at a time.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Final, assert_never

from boards.errors import KitError
from firmware_bridge import limits
from firmware_bridge.errors import DeviceRefused, JobInputError, LocalProtocolError
from firmware_bridge.handler import DeviceHandler
from firmware_bridge.jobs import Failure, JobRequest, Preview, Progress, Result
from firmware_bridge.transfer import CAPABILITIES, Receiver, clip, refusal
from firmware_bridge.wire import messages
from firmware_bridge.wire.connection import Connection, Received, Unreadable
from firmware_bridge.wire.messages import RefusalCode
from firmware_bridge.wire.rate import CAPABILITY
from firmware_bridge.wire.secure import Security
from firmware_bridge.wire.session import Lost, Opened, random_epoch
from firmware_bridge.wire.states import Ending, Role

log = logging.getLogger(__name__)

_RESERVED: Final = 4
"""Room kept for answers to requests, which handlers' events may not take."""

Stream = Iterator[messages.DeviceMessage]


class DeviceEndpoint:
    """One device's end of one line; also the `Outbox` of its handler.

    Args:
        handler: the device behind it.
        epoch: draws session epochs; tests pass their own.
        bytes_per_second: line rate where it is known.
        most_baud: bits a second that this end's UART can go up to; 0: its rate stays.
        security: makes this end's TLS; None: hosts speak without.
    """

    def __init__(
        self,
        handler: DeviceHandler,
        *,
        epoch: Callable[[], int] = random_epoch,
        bytes_per_second: float | None = None,
        most_baud: int = 0,
        security: Security | None = None,
    ) -> None:
        self.connection = Connection(Role.DEVICE, epoch=epoch, bytes_per_second=bytes_per_second, security=security)
        self._handler = handler
        self._receiver = Receiver(handler.store)
        self._submission: tuple[messages.Submit, bytearray] | None = None
        self._received: dict[str, int] = {}  # bytes of results that the host has, by job
        self.wanted_baud: int | None = None
        """The rate that the host has asked for and was granted; the loop takes it away."""
        self._most_baud = most_baud
        self._greeted = False
        self._has_host = False
        self._session = self.connection.session.number
        self._streams: deque[tuple[str, Stream]] = deque()  # what must not be dropped, whole, by job or request
        self._streams_turn = True
        handler.attach(self)

    # ------------------------------------------------------------------ what the loop calls

    def process(self) -> bool:
        """Deal with what the connection has received, and hand it what there is room for. Whether anything happened."""
        happened = False
        if self.connection.session.number != self._session:
            self._session = self.connection.session.number
            self._forget_session()  # at once: nothing that is queued may slip into the new session
        while self._may_take() and (event := self.connection.next_event()) is not None:
            happened = True
            match event:
                case Opened():
                    self._forget_session()
                    self._has_host = True
                    self._handler.session_opened()
                case Lost():
                    self._lost(event)
                case Received(message):
                    self._receive(message)
                case Unreadable(error):
                    self._send(messages.Refused(0, RefusalCode.UNSUPPORTED, clip(str(error))))
                case _:
                    assert_never(event)
            self._fill()
        return self._go_on_receiving() or self._fill() or happened

    def _lost(self, lost: Lost) -> None:
        """A session is over, or, with TLS, has not even begun."""
        self._forget_session()
        if lost.why is Ending.UNTRUSTED:
            log.warning("a host was sent away: %s", lost.detail)
        if self._has_host:
            self._has_host = False
            self._handler.session_closed()

    def _go_on_receiving(self) -> bool:
        """A slice of what an upload takes long for. Whether there was one."""
        if not self._receiver.busy or self.connection.room < 1:
            return False
        answer = self._receiver.work()
        if answer is not None:
            self._send(answer)
        return True

    # ------------------------------------------------------------------ what the handler calls (Outbox)

    def room(self) -> int:
        """Messages that fit before the link catches up; see handler.Outbox."""
        return max(0, self.connection.room - _RESERVED) if self._greeted else 0

    def connected(self) -> bool:
        """Whether a host is there."""
        return self.connection.is_open and self._greeted

    def activation_progress(self, request: int, stage: str, done: int, of: int) -> None:
        """Where an activation stands; dropped when there is no room."""
        self._send_if_room(messages.ActivationProgress(request, stage, done, of))

    def activated(self, request: int, bundle_id: str) -> None:
        """The activation begun under `request` is done."""
        self._queue(f"request {request}", messages.Activated(request, bytes.fromhex(bundle_id)))

    def refuse(self, request: int, code: int, message: str) -> None:
        """The activation begun under `request` failed."""
        self._queue(f"request {request}", messages.Refused(request, code, clip(message)))

    def progress(self, progress: Progress) -> bool:
        """A step ran. False: no room, dropped."""
        return self._send_if_room(
            messages.JobProgress(
                job_id=progress.job_id,
                step=progress.step,
                of=progress.of,
                nanoseconds=progress.nanoseconds,
                passes=progress.passes,
                residual_passes=progress.residual_passes,
                macs=progress.macs,
                saturated=progress.saturated,
            )
        )

    def preview(self, preview: Preview) -> bool:
        """What a job's image looks like. False: the link is busy with what matters more, dropped."""
        if self.connection.room <= limits.OUTBOX // 2:
            return False
        message = messages.JobPreview(preview.job_id, preview.step, preview.of, *preview.shape, preview.pixels)
        return self._send_if_room(message)

    def result(self, result: Result) -> None:
        """The job ended well. LocalProtocolError: its meta or payload is not what a message may hold."""
        if len(result.payload) > limits.MAX_PAYLOAD:
            raise LocalProtocolError(
                f"a result of {len(result.payload)} bytes is over {limits.MAX_PAYLOAD}", where=result.job_id
            )
        head = messages.JobResult(result.job_id, dict(result.meta), len(result.payload))
        self._queue(result.job_id, head, _result_stream(result, self._received.pop(result.job_id, 0)))

    def failure(self, failure: Failure) -> None:
        """The job ended without a result."""
        self._received.pop(failure.job_id, None)
        self._queue(failure.job_id, messages.JobFailure(failure.job_id, failure.code, clip(failure.message)))

    def log(self, text: str) -> None:
        """A line for the user's eyes; dropped when there is no room."""
        self._send_if_room(messages.DeviceLog(clip(text)))

    # ------------------------------------------------------------------ sending

    def _may_take(self) -> bool:
        """Whether a request may be taken: there is room for its answer, or no session left that wants one."""
        if not self.connection.is_open:
            return True
        return self.connection.room >= 1 and len(self._streams) < limits.MAX_JOBS

    def _send(self, message: messages.DeviceMessage) -> None:
        if self.connection.room >= 1:  # else the session is lost: the event that says so is next
            self.connection.send(message)

    def _send_if_room(self, message: messages.DeviceMessage) -> bool:
        if self.room() < 1:
            return False
        self.connection.send(message)
        self._streams_turn = True
        return True

    def _queue(self, name: str, head: messages.DeviceMessage, rest: Iterable[messages.DeviceMessage] = ()) -> None:
        messages.encode(head)  # a mistake in it is found here, where the handler made it
        if not self.connected():
            return
        self._streams = deque(item for item in self._streams if item[0] != name)
        self._streams.append((name, chain([head], rest)))

    def _fill(self) -> bool:
        """Send from the queued streams in turn, a message each. Whether anything was sent.

        They take half of the outbox freely; in the other half they take turns with progress, so that neither a long
        result holds up the jobs' steps nor quick steps a result.
        """
        sent = False
        while self._streams and self.connection.room > _RESERVED:
            if self.connection.room <= limits.OUTBOX // 2:
                if not self._streams_turn:
                    break
                self._streams_turn = False
            name, stream = self._streams.popleft()
            message = next(stream, None)
            if message is not None:
                self.connection.send(message)
                self._streams.append((name, stream))
                sent = True
        return sent

    def _forget_session(self) -> None:
        self._streams.clear()
        self._received.clear()
        self._submission = None
        self._receiver.stop()
        self._greeted = False

    # ------------------------------------------------------------------ requests

    def _receive(self, message: messages.Message) -> None:
        if isinstance(message, messages.Hello):
            self._hello(message)
            return
        if not self._greeted:
            self._send(messages.Refused(_request(message), RefusalCode.UNSUPPORTED, "a session begins with a hello"))
            return
        try:
            self._dispatch(message)
        except JobInputError as error:
            self._send(messages.Refused(_request(message), RefusalCode.BAD_INPUT, clip(error.what)))
        except (DeviceRefused, OSError) as error:
            self._send(refusal(_request(message), error))
        except KitError as error:  # one that the handler had no code for; the device goes on
            self._send(messages.Refused(_request(message), RefusalCode.INTERNAL, clip(str(error))))

    def _dispatch(self, message: messages.Message) -> None:
        match message:
            case messages.QueryBlobs(request, digests):
                present = tuple(digest for digest in digests if self._handler.store.has(digest.hex()))
                self._send(messages.BlobsReply(request, present))
            case messages.BeginUpload() | messages.IndexPart() | messages.BlobChunk():
                answer = self._receiver.take(message)
                if answer is not None:
                    self._send(answer)
            case messages.Activate(request, bundle_id, release):
                self._handler.activate(request, bundle_id.hex(), release)
            case messages.Confirm(request, bundle_id):
                self._handler.confirm(bundle_id.hex())
                self._send(messages.Done(request))
            case messages.Submit():
                self._submission = (message, bytearray())
                self._submit_if_whole()
            case messages.JobPayload():
                self._payload(message)
            case messages.Cancel(request, job_id):
                self._handler.cancel(job_id)
                self._send(messages.Done(request))
            case _:
                self._dispatch_rest(message)

    def _dispatch_rest(self, message: messages.Message) -> None:
        match message:
            case messages.ChangeRate(request, baud):
                if baud > self._most_baud:
                    raise DeviceRefused(RefusalCode.UNSUPPORTED, f"{baud} baud, this end can {self._most_baud}")
                self.wanted_baud = baud
                self._send(messages.Done(request))
            case messages.Taken(job_id):
                self._handler.forget(job_id)
            case _:
                what = f"{type(message).__name__} is not a host's message"
                raise DeviceRefused(RefusalCode.UNSUPPORTED, what)

    def _hello(self, hello: messages.Hello) -> None:
        if hello.protocol != messages.PROTOCOL:
            what = f"the host speaks protocol {hello.protocol}, this device {messages.PROTOCOL}"
            self._send(messages.Refused(hello.request, RefusalCode.UNSUPPORTED, what))
            return
        self._greeted = True
        info = self._handler.describe()
        rates = (f"{CAPABILITY}{self._most_baud}",) if self._most_baud else ()
        info = replace(info, capabilities=(*info.capabilities, *CAPABILITIES, *rates))
        self._send(info.reply(hello.request))

    def _payload(self, chunk: messages.JobPayload) -> None:
        if self._submission is None or self._submission[0].request != chunk.request:
            return  # the submission was refused or replaced; its answer is on its way
        submit, payload = self._submission
        if chunk.offset != len(payload) or len(payload) + len(chunk.data) > submit.payload_size:
            self._submission = None
            what = f"{len(chunk.data)} bytes at {chunk.offset}, where {len(payload)} of {submit.payload_size} are here"
            raise DeviceRefused(RefusalCode.OFFSET, what)
        payload += chunk.data
        self._submit_if_whole()

    def _submit_if_whole(self) -> None:
        assert self._submission is not None
        submit, payload = self._submission
        if len(payload) < submit.payload_size:
            return
        self._submission = None
        deadline = submit.deadline_ms / 1000 if submit.deadline_ms else None
        job = JobRequest(
            job_id=submit.job_id,
            kind=submit.kind,
            params=submit.params,
            payload=bytes(payload),
            priority=submit.priority,
            deadline=deadline,
            bundle=None if submit.bundle is None else submit.bundle.hex(),
            preview_every=submit.preview_every,
        )
        self._received[submit.job_id] = submit.received
        try:
            self._handler.submit(job)
        except BaseException:
            self._received.pop(submit.job_id, None)
            raise
        self._send(messages.Done(submit.request))


def _request(message: messages.Message) -> int:
    """The number under which the host waits for an answer; 0 where it waits for none."""
    return getattr(message, "request", 0)


def _result_stream(result: Result, received: int) -> Stream:
    for offset in range(received, len(result.payload), limits.CHUNK):
        yield messages.ResultPayload(result.job_id, offset, result.payload[offset : offset + limits.CHUNK])
