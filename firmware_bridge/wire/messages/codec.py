"""Every message, as a frozen dataclass, and its bytes: one canonical CBOR map each (RFC 8949, section 4.2.3).

A message is a map whose key "m" holds the type's number and whose other keys are the dataclass's fields, all of them,
no others. The encoding is canonical and checked to be: a message has exactly one byte string. Byte tables and version
rules: PROTOCOL.md. What a message may hold is checked in both directions: `encode` raises LocalProtocolError, `decode`
raises RemoteProtocolError and nothing else.

Long payloads never travel in one message: a job's payload and a result follow their head in `JobPayload` and
`ResultPayload` chunks, so that progress of other jobs passes between them.
"""

from __future__ import annotations

import typing
from dataclasses import fields
from typing import Final, NoReturn

import cbor2

from firmware_bridge import limits
from firmware_bridge.errors import LocalProtocolError, RemoteProtocolError, UnknownMessage
from firmware_bridge.wire.fields import Check
from firmware_bridge.wire.messages.device import DeviceMessage, Event, Reply
from firmware_bridge.wire.messages.host import HostMessage

Message = HostMessage | DeviceMessage

CLASSES: Final = typing.get_args(HostMessage) + typing.get_args(Reply) + typing.get_args(Event)
BY_CODE: Final[dict[int, type[Message]]] = {kind.code: kind for kind in CLASSES}


def _checks(kind: type[Message]) -> dict[str, Check]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name].__metadata__[0] for field in fields(kind)}


CHECKS: Final[dict[type[Message], dict[str, Check]]] = {kind: _checks(kind) for kind in BY_CODE.values()}


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
    for name, check in CHECKS[type(message)].items():
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
    checks = CHECKS[kind]
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
