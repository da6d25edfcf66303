"""Every message, as a frozen dataclass, and its bytes: one canonical CBOR map each (RFC 8949, section 4.2.3).

A message is a map whose key "m" holds the type's number and whose other keys are the dataclass's fields, all of them,
no others. The encoding is canonical and checked to be: a message has exactly one byte string. Byte tables and version
rules: PROTOCOL.md. What a message may hold is checked in both directions: `encode` raises LocalProtocolError, `decode`
raises RemoteProtocolError and nothing else.

Long payloads never travel in one message: a job's payload and a result follow their head in `JobPayload` and
`ResultPayload` chunks, so that progress of other jobs passes between them.
"""

from __future__ import annotations

import enum
import typing
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, Final, NoReturn

import cbor2

from firmware_bridge import limits
from firmware_bridge.errors import LocalProtocolError, RemoteProtocolError, UnknownMessage
from firmware_bridge.wire.fields import Blob, Check, Many, Maybe, Text, Tree, UInt

PROTOCOL: Final = 1
"""The protocol's version: packet header and messages together. Peers with different numbers do not talk."""

Request = Annotated[int, UInt(limits.MAX_REQUEST)]
Code = Annotated[int, UInt(0xFFFF)]
Count = Annotated[int, UInt(limits.MAX_COUNT)]
Step = Annotated[int, UInt(limits.MAX_REQUEST)]
Name = Annotated[str, Text(limits.MAX_NAME)]
Words = Annotated[str, Text(limits.MAX_TEXT)]
JobId = Annotated[str, Text(64, r"[A-Za-z0-9_.-]{1,64}")]
Digest = Annotated[bytes, Blob(32, 32)]
Chunk = Annotated[bytes, Blob(limits.MAX_MESSAGE - 256, 1)]
BlobOffset = Annotated[int, UInt(limits.MAX_BLOB)]
PayloadSize = Annotated[int, UInt(limits.MAX_PAYLOAD)]
Flat = Annotated[dict[str, object], Tree(1, limits.MAX_PARAMS)]
Meta = Annotated[dict[str, object], Tree(limits.MAX_DEPTH, limits.MAX_ITEMS)]


class RefusalCode(enum.IntEnum):
    """Why a device refuses a request (`Refused.code`)."""

    INTERNAL = 1
    UNSUPPORTED = 2
    BUSY = 3
    STORAGE = 4
    NO_SPACE = 5
    HASH_MISMATCH = 6
    UNKNOWN_BUNDLE = 7
    BUNDLE_INVALID = 8
    SELF_TEST = 9
    NO_ACTIVE_BUNDLE = 10
    BAD_INPUT = 11
    OFFSET = 12


class FailureCode(enum.IntEnum):
    """Why an accepted job did not end in a result (`JobFailure.code`)."""

    INTERNAL = 1
    ENGINE_DIED = 2
    OUT_OF_MEMORY = 3
    CANCELLED = 4
    BAD_INPUT = 5
    NOT_FINITE = 6
    BUNDLE_CHANGED = 7
    LOST = 8


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
    """Host: a blob of `size` bytes follows. Answer: `UploadReady(offset)`, or `BlobStored` at once, or `Refused`."""

    code: ClassVar[int] = 3
    request: Request
    digest: Digest
    size: Annotated[int, UInt(limits.MAX_BLOB, 1)]


@dataclass(frozen=True, slots=True)
class BlobChunk:
    """Host: bytes [offset, offset + len(data)) of the blob announced under `request`. Not answered one by one."""

    code: ClassVar[int] = 4
    request: Request
    offset: BlobOffset
    data: Chunk


@dataclass(frozen=True, slots=True)
class Activate:
    """Host: verify, self-test and make this bundle the active one. Answer: `ActivationProgress`..., `Activated`."""

    code: ClassVar[int] = 5
    request: Request
    bundle_id: Digest


@dataclass(frozen=True, slots=True)
class Submit:
    """Host: a job; `payload_size` bytes follow in `JobPayload`. Answer once they are there: `Done` or `Refused`."""

    code: ClassVar[int] = 6
    request: Request
    job_id: JobId
    kind: Name
    params: Flat
    payload_size: PayloadSize


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
    """Device: send the blob from this offset on; before it, the device has the bytes."""

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


HostMessage = Hello | QueryBlobs | BeginUpload | BlobChunk | Activate | Submit | JobPayload | Cancel | Taken
Reply = HelloReply | BlobsReply | UploadReady | BlobStored | Done | Refused | ActivationProgress | Activated
Event = JobProgress | JobResult | ResultPayload | JobFailure | DeviceLog
DeviceMessage = Reply | Event
Message = HostMessage | DeviceMessage

_CLASSES: Final = typing.get_args(HostMessage) + typing.get_args(Reply) + typing.get_args(Event)
BY_CODE: Final[dict[int, type[Message]]] = {kind.code: kind for kind in _CLASSES}


def _checks(kind: type[Message]) -> dict[str, Check]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name].__metadata__[0] for field in fields(kind)}


_CHECKS: Final[dict[type[Message], dict[str, Check]]] = {kind: _checks(kind) for kind in BY_CODE.values()}


def _no_tags(_value: object, _immutable: bool) -> NoReturn:
    raise ValueError("CBOR tags are not part of the protocol")


# Every tag that cbor2 would turn into an object: none is ours, and some cost unbounded time or memory to build.
_TAGS: Final = dict.fromkeys(
    (*range(6), 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799), _no_tags
)


def encode(message: Message) -> bytes:
    """The message's bytes.

    Raises:
        LocalProtocolError: a field holds what the protocol does not allow, or the whole is over MAX_MESSAGE bytes.
    """
    plain: dict[str, object] = {"m": message.code}
    for name, check in _CHECKS[type(message)].items():
        try:
            plain[name] = check(getattr(message, name))
        except ValueError as error:
            raise LocalProtocolError(str(error), where=f"{type(message).__name__}.{name}") from None
    data = cbor2.dumps(plain, canonical=True)
    if len(data) > limits.MAX_MESSAGE:
        raise LocalProtocolError(
            f"{len(data)} bytes are more than a message may have ({limits.MAX_MESSAGE})", where=type(message).__name__
        )
    return data


def decode(data: bytes) -> Message:
    """The message in these bytes, whole and valid.

    Raises:
        UnknownMessage: a well-formed message of a type that this version does not know.
        RemoteProtocolError: anything else that is wrong with it; never another error.
    """
    if len(data) > limits.MAX_MESSAGE:
        raise RemoteProtocolError(f"a message of {len(data)} bytes is over {limits.MAX_MESSAGE}")
    plain = _plain_map(data)
    code = plain.pop("m", None)
    if type(code) is not int:
        raise RemoteProtocolError("a message without a type")
    kind = BY_CODE.get(code)
    if kind is None:
        raise UnknownMessage(code)
    checks = _CHECKS[kind]
    if plain.keys() != checks.keys():
        odd = ", ".join(sorted(plain.keys() ^ checks.keys()))
        raise RemoteProtocolError(f"fields missing or unknown: {odd}", where=kind.__name__)
    values: dict[str, object] = {}
    for name, check in checks.items():
        try:
            values[name] = check(plain[name])
        except ValueError as error:
            raise RemoteProtocolError(str(error), where=f"{kind.__name__}.{name}") from None
    return kind(**values)  # type: ignore[arg-type]  # each value passed its own field's check


def _plain_map(data: bytes) -> dict[str, object]:
    """The CBOR map in `data`, which must be its own canonical encoding."""
    try:
        plain = cbor2.loads(
            data,
            semantic_decoders=_TAGS,
            max_depth=limits.MAX_DEPTH + 2,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
        canonical = type(plain) is dict and cbor2.dumps(plain, canonical=True) == data
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise RemoteProtocolError(f"not CBOR: {error}") from None
    if not canonical:
        raise RemoteProtocolError("not a canonical CBOR map")
    assert isinstance(plain, dict)
    if not all(type(key) is str for key in plain):
        raise RemoteProtocolError("a message's keys are text")
    return plain
