"""What a host says: requests, and the bytes that belong to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from firmware_bridge import limits
from firmware_bridge.wire.fields import Blob, Flag, Many, Maybe, Text, UInt
from firmware_bridge.wire.messages.fieldtypes import (
    BlobOffset,
    Chunk,
    Code,
    Count,
    Digest,
    Flat,
    JobId,
    Name,
    PayloadSize,
    Request,
    Step,
)


@dataclass(frozen=True, slots=True)
class Hello:
    """Host: the first message of a session. `protocol` is the host's; the device answers `HelloReply` or `Refused`."""

    code: ClassVar[int] = 1
    request: Request
    protocol: Code
    agent: Name
    capabilities: Annotated[tuple[str, ...], Many(Text(limits.MAX_NAME), limits.MAX_CAPABILITIES)]


@dataclass(frozen=True, slots=True)
class QueryBlobs:
    """Host: which of these SHA-256 digests does the device hold, complete? Answer: `BlobsReply`."""

    code: ClassVar[int] = 2
    request: Request
    digests: Annotated[tuple[bytes, ...], Many(Blob(32, 32), limits.MAX_QUERY)]


@dataclass(frozen=True, slots=True)
class BeginUpload:
    """Host: a blob follows. Answer: `BlobStored` at once, `UploadReady`, `ChunksWanted`..., or `Refused`.

    Attributes:
        digest: SHA-256 of the blob.
        size: its bytes.
        index: SHA-256 of the list of its chunks (chunks.py).
        index_size: bytes of that list.
    """

    code: ClassVar[int] = 3
    request: Request
    digest: Digest
    size: Annotated[int, UInt(limits.MAX_BLOB, 1)]
    index: Digest
    index_size: Annotated[int, UInt(limits.MAX_BLOB, 1)]


@dataclass(frozen=True, slots=True)
class BlobChunk:
    """Host: one of the chunks wanted of the blob announced under `request`, as it is or as a zlib stream."""

    code: ClassVar[int] = 4
    request: Request
    number: Step
    is_deflated: Annotated[bool, Flag()]
    data: Chunk


@dataclass(frozen=True, slots=True)
class Activate:
    """Host: verify, self-test and make this bundle the active one. Answer: `ActivationProgress`..., `Activated`.

    `release` is the signed statement (release.py) that this bundle may run here; empty where nobody signs.
    """

    code: ClassVar[int] = 5
    request: Request
    bundle_id: Digest
    release: Annotated[bytes, Blob(limits.MAX_RELEASE)] = b""


@dataclass(frozen=True, slots=True)
class Submit:
    """Host: a job; `payload_size` bytes follow in `JobPayload`. Answer once they are there: `Done` or `Refused`.

    Attributes:
        priority: jobs of a higher one begin before those of a lower one.
        deadline_ms: milliseconds from now after which nobody wants the result; 0: never.
        received: bytes of the result's payload that the host has from before; they are not sent again.
        bundle: run it in this bundle, or refuse it (OTHER_BUNDLE); None: in whichever is active.
        preview_every: steps between two `JobPreview`; 0: none. A device without the capability `preview` sends none.
    """

    code: ClassVar[int] = 6
    request: Request
    job_id: JobId
    kind: Name
    params: Flat
    payload_size: PayloadSize
    priority: Annotated[int, UInt(255)] = 0
    deadline_ms: Count = 0
    received: PayloadSize = 0
    bundle: Annotated[bytes | None, Maybe(Blob(32, 32))] = None
    preview_every: Step = 0


@dataclass(frozen=True, slots=True)
class JobPayload:
    """Host: the next bytes of a submitted job's payload."""

    code: ClassVar[int] = 7
    request: Request
    offset: PayloadSize
    data: Chunk


@dataclass(frozen=True, slots=True)
class Cancel:
    """Host: stop a job. Answer: `Done`, also for a job that has ended; the job ends in `JobFailure(CANCELLED)`."""

    code: ClassVar[int] = 8
    request: Request
    job_id: JobId


@dataclass(frozen=True, slots=True)
class Taken:
    """Host: the job's result or failure has arrived whole; the device may forget it. Not answered."""

    code: ClassVar[int] = 9
    job_id: JobId


@dataclass(frozen=True, slots=True)
class IndexPart:
    """Host: the next bytes of the list of chunks of the blob announced under `request`."""

    code: ClassVar[int] = 10
    request: Request
    offset: BlobOffset
    data: Chunk


@dataclass(frozen=True, slots=True)
class Confirm:
    """Host: the active bundle works; the device need not fall back from it at its next start. Answer: `Done`."""

    code: ClassVar[int] = 11
    request: Request
    bundle_id: Digest


@dataclass(frozen=True, slots=True)
class ChangeRate:
    """Host: let both ends of this UART go to another rate, and back if nothing arrives then. Answer: `Done`."""

    code: ClassVar[int] = 30
    request: Request
    baud: Annotated[int, UInt(limits.MAX_BAUD, limits.MIN_BAUD)]


HostMessage = ChangeRate | (
    Hello | QueryBlobs | BeginUpload | BlobChunk | Activate | Submit | JobPayload | Cancel | Taken | IndexPart | Confirm
)
