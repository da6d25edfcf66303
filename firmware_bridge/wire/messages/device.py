"""What a device says: answers to requests, and events of jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from firmware_bridge import limits
from firmware_bridge.wire.fields import Blob, Flag, Many, Maybe, Text, Tree, UInt
from firmware_bridge.wire.messages.fieldtypes import (
    BlobOffset,
    Chunk,
    Code,
    Count,
    Digest,
    JobId,
    Meta,
    Name,
    PayloadSize,
    Request,
    Step,
    Words,
)


@dataclass(frozen=True, slots=True)
class HelloReply:
    """Device: who it is and what it can hold.

    Attributes:
        protocol: the device's protocol version.
        agent: name and version of the supervisor.
        capabilities: optional parts of the protocol that it speaks.
        device_id: identity of the device, stable across reboots.
        boot_id: random, new at each start of the supervisor.
        board: name of the board (boards/*.toml).
        versions: e.g. {"executorch": "1.5.1", "operators": 1, "kit": "0.1.0"}.
        slots: jobs it runs interleaved.
        credits: jobs that it takes now before it says busy.
        memory_bytes: what a bundle may use.
        storage_free: bytes free for blobs.
        active_bundle: id of the active bundle, None before the first activation.
    """

    code: ClassVar[int] = 32
    request: Request
    protocol: Code
    agent: Name
    capabilities: Annotated[tuple[str, ...], Many(Text(limits.MAX_NAME), limits.MAX_CAPABILITIES)]
    device_id: Name
    boot_id: Name
    board: Name
    versions: Annotated[dict[str, object], Tree(1, limits.MAX_CAPABILITIES)]
    slots: Code
    credits: Code
    memory_bytes: Count
    storage_free: Count
    active_bundle: Annotated[bytes | None, Maybe(Blob(32, 32))]


@dataclass(frozen=True, slots=True)
class BlobsReply:
    """Device: those of the digests asked about that it holds."""

    code: ClassVar[int] = 33
    request: Request
    present: Annotated[tuple[bytes, ...], Many(Blob(32, 32), limits.MAX_QUERY)]


@dataclass(frozen=True, slots=True)
class UploadReady:
    """Device: send the blob's list of chunks from this offset on; before it, the device has the bytes."""

    code: ClassVar[int] = 34
    request: Request
    offset: BlobOffset


@dataclass(frozen=True, slots=True)
class BlobStored:
    """Device: the blob is complete, its SHA-256 verified, and on disk."""

    code: ClassVar[int] = 35
    request: Request


@dataclass(frozen=True, slots=True)
class Done:
    """Device: the request is accepted; nothing more to say."""

    code: ClassVar[int] = 36
    request: Request


@dataclass(frozen=True, slots=True)
class Refused:
    """Device: the request is refused (`RefusalCode`); for the host DeviceRefused, or JobInputError for BAD_INPUT."""

    code: ClassVar[int] = 37
    request: Request
    reason: Code
    message: Words


@dataclass(frozen=True, slots=True)
class ActivationProgress:
    """Device: where an activation stands, e.g. ("verify", 3, 5); any number of these."""

    code: ClassVar[int] = 38
    request: Request
    stage: Name
    done: Count
    of: Count


@dataclass(frozen=True, slots=True)
class Activated:
    """Device: the bundle passed its self-test and is the active one, durably."""

    code: ClassVar[int] = 39
    request: Request
    bundle_id: Digest


@dataclass(frozen=True, slots=True)
class JobProgress:
    """Device: a job ran a step. Step counts from 1 to `of`; the rest is that step's statistics."""

    code: ClassVar[int] = 40
    job_id: JobId
    step: Step
    of: Step
    nanoseconds: Count
    passes: Count
    residual_passes: Count
    macs: Count
    saturated: Count


@dataclass(frozen=True, slots=True)
class JobPreview:
    """Device: what a job's image looks like after `step` of `of` steps, small; only where `Submit` asked for it.

    Attributes:
        pixels: u8 [channels, height, width]; 0 is -1 (or less), 255 is 1 (or more).
    """

    code: ClassVar[int] = 46
    job_id: JobId
    step: Step
    of: Step
    channels: Annotated[int, UInt(limits.PREVIEW_CHANNELS, 1)]
    height: Annotated[int, UInt(limits.PREVIEW_SIDE, 1)]
    width: Annotated[int, UInt(limits.PREVIEW_SIDE, 1)]
    pixels: Annotated[bytes, Blob(limits.PREVIEW_CHANNELS * limits.PREVIEW_SIDE**2, 1)]


@dataclass(frozen=True, slots=True)
class JobResult:
    """Device: a job has ended well; `payload_size` bytes follow in `ResultPayload`."""

    code: ClassVar[int] = 41
    job_id: JobId
    meta: Meta
    payload_size: PayloadSize


@dataclass(frozen=True, slots=True)
class ResultPayload:
    """Device: the next bytes of a job's result."""

    code: ClassVar[int] = 42
    job_id: JobId
    offset: PayloadSize
    data: Chunk


@dataclass(frozen=True, slots=True)
class JobFailure:
    """Device: a job has ended without a result (`FailureCode`)."""

    code: ClassVar[int] = 43
    job_id: JobId
    reason: Code
    message: Words


@dataclass(frozen=True, slots=True)
class DeviceLog:
    """Device: a line of its log, for the user's eyes."""

    code: ClassVar[int] = 44
    text: Words


@dataclass(frozen=True, slots=True)
class ChunksWanted:
    """Device: which chunks of the announced blob it lacks, in one message or more; `is_last` ends them.

    Attributes:
        first: number of the chunk that the bitmap begins with.
        bitmap: bit n % 8 of byte n // 8 is set if chunk `first` + n is wanted.
    """

    code: ClassVar[int] = 45
    request: Request
    first: Step
    bitmap: Chunk
    is_last: Annotated[bool, Flag()]


Reply = (
    HelloReply | BlobsReply | UploadReady | BlobStored | Done | Refused | ActivationProgress | Activated | ChunksWanted
)
Event = JobProgress | JobPreview | JobResult | ResultPayload | JobFailure | DeviceLog
DeviceMessage = Reply | Event
