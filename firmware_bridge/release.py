"""Releases: the signed statement that a bundle may run on a kind of board, and in which order releases come.

Two canonical CBOR maps. The statement:

    purpose    "modiff-edge release 1"
    bundle     SHA-256 of the bundle's manifest, 32 bytes; the manifest has the SHA-256 of every file
    board      name of the board
    version    1..2^63-1; a device takes a higher one than it has had
    back       null, or [from, used]: a permission to go back, for a device whose highest release is `from` and which
               has used `used` such permissions; so each works once

and what goes over the wire: ``key`` (Ed25519 public key, 32 bytes), ``signature`` (64 bytes), ``statement``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from firmware_bridge import limits

_PURPOSE: Final = "modiff-edge release 1"
_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True)
class Release:
    """What is stated.

    Args:
        bundle_id: SHA-256 of the manifest, 64 lower-case hex digits.
        board: name of the board that it is for.
        version: its place in the order of releases.
        back: (from, used), a permission to go back; see above.
    """

    bundle_id: str
    board: str
    version: int
    back: tuple[int, int] | None = None

    def to_bytes(self) -> bytes:
        """The statement's bytes, which are signed."""
        return cbor2.dumps(
            {
                "purpose": _PURPOSE,
                "bundle": bytes.fromhex(self.bundle_id),
                "board": self.board,
                "version": self.version,
                "back": None if self.back is None else list(self.back),
            },
            canonical=True,
        )


@dataclass(frozen=True)
class Signed:
    """A release and who signed it: the Ed25519 public key, 32 bytes. The signature was checked."""

    release: Release
    key: bytes


def sign(release: Release, key: Ed25519PrivateKey) -> bytes:
    """The release as it goes over the wire."""
    statement = release.to_bytes()
    signed = {"key": key.public_key().public_bytes_raw(), "signature": key.sign(statement), "statement": statement}
    return cbor2.dumps(signed, canonical=True)


def open_signed(data: bytes) -> Signed:
    """Read a signed release and check the signature with the key that it brings; whether to trust it is yours to say.

    Raises:
        ValueError: not a signed release, or the signature is not the key's.
    """
    if len(data) > limits.MAX_RELEASE:
        raise ValueError("it is too long")
    envelope = _fields(data, {"key": bytes, "signature": bytes, "statement": bytes})
    key, signature, statement = envelope["key"], envelope["signature"], envelope["statement"]
    if len(key) != _KEY_BYTES or len(signature) != _SIGNATURE_BYTES:
        raise ValueError("a key has 32 bytes, a signature 64")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, statement)
    except InvalidSignature:
        raise ValueError("the signature is not the key's") from None
    return Signed(_release(statement), key)


def _release(statement: bytes) -> Release:
    kinds: dict[str, type | tuple[type, ...]] = {
        "purpose": str,
        "bundle": bytes,
        "board": str,
        "version": int,
        "back": (list, type(None)),
    }
    fields = _fields(statement, kinds)
    back = fields["back"]
    if back is not None and (len(back) != 2 or any(type(n) is not int or n < 0 for n in back)):
        raise ValueError("a permission to go back names two numbers")
    if fields["purpose"] != _PURPOSE or len(fields["bundle"]) != 32 or not 1 <= fields["version"] <= limits.MAX_COUNT:
        raise ValueError("it states something else")
    return Release(
        fields["bundle"].hex(), fields["board"], fields["version"], None if back is None else (back[0], back[1])
    )


def _fields(data: bytes, kinds: dict[str, type | tuple[type, ...]]) -> dict[str, Any]:
    try:
        fields = cbor2.loads(data)
    except Exception as error:  # noqa: BLE001  cbor2 raises several kinds; each means that it is not ours
        raise ValueError(f"it is no CBOR: {error}") from None
    if type(fields) is not dict or fields.keys() != kinds.keys():
        raise ValueError("its fields are not those of a release")
    if any(not isinstance(fields[name], kind) or type(fields[name]) is bool for name, kind in kinds.items()):
        raise ValueError("its fields are of other types")
    return fields
