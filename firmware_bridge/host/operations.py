"""The conversations of a host with a device, one generator each: what is said, what is waited for, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from firmware_bridge import limits
from firmware_bridge.host.answers import expect
from firmware_bridge.host.task import Answer, Ask, Operation, Post, Release
from firmware_bridge.info import AGENT, DeviceInfo
from firmware_bridge.jobs import JobRequest
from firmware_bridge.transfer import DEFLATE, Source, numbers_wanted
from firmware_bridge.wire import messages

M = TypeVar("M", bound=messages.Reply)


@dataclass
class UploadCount:
    """What an upload has taken so far, over all the sessions that it needs.

    Args:
        chunks: bytes of the chunks that were sent, before compression.
        sent: bytes that they took in messages, their list among them.
    """

    chunks: int = 0
    sent: int = 0


def greet(ask: Ask) -> Operation[DeviceInfo]:
    """The hello that begins each session."""
    yield Post(messages.Hello(ask.number, messages.PROTOCOL, AGENT, ()))
    return DeviceInfo.of(expect((yield Answer()), messages.HelloReply))


def request(build: Callable[[int], messages.HostMessage], kind: type[M]) -> Callable[[Ask], Operation[M]]:
    """One message, one reply.

    Args:
        build: makes the message, given the request's number.
        kind: of the reply.
    """

    def operation(ask: Ask) -> Operation[M]:
        yield Post(build(ask.number))
        return expect((yield Answer()), kind)

    return operation


def tell(build: Callable[[int], messages.HostMessage]) -> Callable[[Ask], Operation[None]]:
    """One message, and nobody waits for an answer."""

    def operation(ask: Ask) -> Operation[None]:
        yield Post(build(ask.number))

    return operation


def upload(
    blob: Source, count: UploadCount, capabilities: Callable[[], tuple[str, ...]]
) -> Callable[[Ask], Operation[None]]:
    """Bring a blob's missing chunks to the device; notes: (bytes on the device or on their way, bytes of the blob).

    Args:
        blob: the bytes.
        count: adds up, over all sessions.
        capabilities: the device's, of the session at hand.
    """

    def operation(ask: Ask) -> Operation[None]:
        yield Post(blob.begin(ask.number), limits.UPLOAD_TIMEOUT)
        reply = yield Answer(limits.UPLOAD_TIMEOUT)
        while isinstance(reply, messages.UploadReady):
            for part in blob.index_parts(ask.number, reply.offset):
                yield Post(part, limits.UPLOAD_TIMEOUT)
                count.sent += len(part.data)
            reply = yield Answer(limits.UPLOAD_TIMEOUT)
        if isinstance(reply, messages.BlobStored):
            return
        wanted: list[int] = []
        while not (want := expect(reply, messages.ChunksWanted)).is_last:
            wanted += numbers_wanted(want)
            reply = yield Answer(limits.UPLOAD_TIMEOUT)
        wanted += numbers_wanted(want)
        for chunk in blob.wanted(ask.number, wanted, packs=DEFLATE in capabilities()):
            if ask.is_answered:  # a refusal before all was sent: the answer says which
                break
            yield Post(chunk, limits.UPLOAD_TIMEOUT)
            size = blob.chunks.size(chunk.number)
            count.chunks += size
            count.sent += len(chunk.data)
            ask.note(blob.chunks.offset(chunk.number) + size, blob.size)
        expect((yield Answer(limits.UPLOAD_TIMEOUT)), messages.BlobStored)

    return operation


def activate(bundle_id: bytes, release: bytes) -> Callable[[Ask], Operation[None]]:
    """Verify, self-test and activate a bundle; notes: (stage, done, of)."""

    def operation(ask: Ask) -> Operation[None]:
        yield Post(messages.Activate(ask.number, bundle_id, release))
        while isinstance(reply := (yield Answer(limits.ACTIVATION_TIMEOUT)), messages.ActivationProgress):
            ask.note(reply.stage, reply.done, reply.of)
        expect(reply, messages.Activated)

    return operation


def submit(
    job: JobRequest, received: Callable[[], int], accepted: Callable[[], None]
) -> Callable[[Ask], Operation[None]]:
    """Hand a job over.

    Args:
        job: the job.
        received: bytes of its result that are here already.
        accepted: called when the device has taken it.
    """

    def operation(ask: Ask) -> Operation[None]:
        deadline = 0 if job.deadline is None else max(1, round(job.deadline * 1000))
        fields = (job.job_id, job.kind, dict(job.params), len(job.payload), job.priority, deadline, received())
        bundle = None if job.bundle is None else bytes.fromhex(job.bundle)
        yield Post(messages.Submit(ask.number, *fields, bundle, job.preview_every), limits.UPLOAD_TIMEOUT)
        for offset in range(0, len(job.payload), limits.CHUNK):
            if ask.is_answered:
                break
            data = job.payload[offset : offset + limits.CHUNK]
            yield Post(messages.JobPayload(ask.number, offset, data), limits.UPLOAD_TIMEOUT)
        yield Release()
        expect((yield Answer(limits.UPLOAD_TIMEOUT)), messages.Done)
        accepted()

    return operation
