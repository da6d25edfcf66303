"""Keys: who may release bundles. A user's own keys on the host, and the keys that a device trusts.

    host     <config>/keys/NAME.pem     private key, PKCS#8, readable by its owner alone
             <config>/keys/NAME.pub     its public half, one line: ed25519 BASE64 NAME
    device   <root>/keys/ID.pub         a key that is trusted; ID: the first 16 hex digits of the public key's SHA-256
             <root>/keys/ID.revoked     a key that is not trusted any more, and is never taken again

``<config>`` is the user's configuration folder, or ``$EDGE_KEYS`` in place of ``<config>/keys``.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from boards.errors import ExitCode, KitError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FOLDER_VARIABLE: Final = "EDGE_KEYS"
DEFAULT_NAME: Final = "default"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_LINE: Final = re.compile(r"ed25519 ([A-Za-z0-9+/]{43}=)(?: ([\x20-\x7e]{1,64}))?\s*")


class KeyFault(KitError):  # noqa: N818  names what happened
    """A key that is missing, there already, or none at all."""

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 public key, 32 bytes, and what people call it."""

    raw: bytes
    name: str

    @property
    def key_id(self) -> str:
        """16 hex digits that name it."""
        return key_id(self.raw)

    def line(self) -> str:
        """The key as one line of text."""
        return f"ed25519 {base64.b64encode(self.raw).decode()} {self.name}"

    @classmethod
    def parse(cls, text: str, where: str = "") -> PublicKey:
        """The key in a line of text.

        Raises:
            KeyFault: it is none.
        """
        match = _LINE.fullmatch(text)
        if match is None:
            raise KeyFault("not a public key", where=where, mend="give a .pub file, or its line: ed25519 BASE64 NAME")
        return cls(base64.b64decode(match[1]), match[2] or "")


def key_id(raw: bytes) -> str:
    """16 hex digits that name a public key."""
    return hashlib.sha256(raw).hexdigest()[:16]


def default_folder() -> Path:
    """Where the user's own keys lie."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    import platformdirs  # noqa: PLC0415  no device needs it

    return Path(platformdirs.user_config_dir("modiff-edge")) / "keys"


class OwnKeys:
    """The keys that a user signs with.

    Args:
        folder: where they lie; made when the first key is.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    def names(self) -> list[str]:
        """Their names, sorted."""
        return sorted(path.stem for path in self.folder.glob("*.pem"))

    def create(self, name: str = DEFAULT_NAME) -> PublicKey:
        """Make a key. The private half is written readable by its owner alone, and never over another.

        Raises:
            KeyFault: there is one of this name, or it is no name, or the folder cannot be written.
        """
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  takes a moment to import
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self._path(name)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise KeyFault(f"it cannot be made: {error.strerror}", where=str(self.folder)) from error
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            mend = "choose another name; a key is never written over"
            raise KeyFault(f"there is a key {name!r} already", where=str(path), mend=mend) from None
        except OSError as error:
            raise KeyFault(f"it cannot be written: {error.strerror}", where=str(path)) from error
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(pem)
                os.fsync(fd)
        except OSError as error:
            path.unlink()  # half a key is none
            raise KeyFault(f"it cannot be written: {error.strerror}", where=str(path)) from error
        public = PublicKey(key.public_key().public_bytes_raw(), name)
        path.with_suffix(".pub").write_text(public.line() + "\n", encoding="ascii")
        return public

    def load(self, name: str = DEFAULT_NAME) -> Ed25519PrivateKey:
        """A private key.

        Raises:
            KeyFault: there is none of this name, or the file holds something else.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

        path = self._path(name)
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except OSError as error:
            known = ", ".join(self.names()) or "none"
            mend = f"keys here: {known}; python -m firmware_bridge keys create {name}"
            raise KeyFault(f"no key: {error.strerror}", where=str(path), mend=mend) from error
        except (ValueError, TypeError) as error:
            raise KeyFault("not an unencrypted private key", where=str(path)) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFault("not an Ed25519 key", where=str(path))
        return key

    def public(self, name: str = DEFAULT_NAME) -> PublicKey:
        """The public half, from the private one. KeyFault: as ``load``."""
        return PublicKey(self.load(name).public_key().public_bytes_raw(), name)

    def _path(self, name: str) -> Path:
        if _NAME.fullmatch(name) is None:
            raise KeyFault(f"{name!r} is no name for a key", mend="use letters, digits, '.', '_' and '-'")
        return self.folder / f"{name}.pem"


class TrustedKeys:
    """The keys that a device trusts.

    Args:
        folder: ``keys`` in the device's folder; made when the first key is trusted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def is_provisioned(self) -> bool:
        """Whether a key was ever trusted here: from then on, what is not signed is refused."""
        return any(self._files())

    def listed(self) -> list[PublicKey]:
        """The keys that are trusted; a file that holds none is passed over."""
        found = []
        for path in self._files():
            if path.suffix == ".pub":
                try:
                    found.append(PublicKey.parse(path.read_text(encoding="ascii", errors="replace"), str(path)))
                except KeyFault:
                    continue
        return found

    def trusts(self, raw: bytes) -> bool:
        """Whether a public key is trusted."""
        return any(key.raw == raw for key in self.listed())

    def trust(self, key: PublicKey) -> None:
        """Trust a key, durably.

        Raises:
            KeyFault: it was revoked here, or the folder cannot be written.
        """
        path = self.folder / f"{key.key_id}.pub"
        if path.with_suffix(".revoked").exists():
            raise KeyFault(f"key {key.key_id} was revoked here", where=str(path), mend="make a new key")
        try:
            self.folder.mkdir(exist_ok=True)
            beside = path.with_suffix(".new")
            with beside.open("w", encoding="ascii") as file:
                file.write(key.line() + "\n")
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            self._sync()
        except OSError as error:
            raise KeyFault(f"it cannot be written: {error.strerror}", where=str(path)) from error

    def revoke(self, which: str) -> PublicKey:
        """Trust a key no more, and never again.

        Args:
            which: its id.

        Raises:
            KeyFault: it is not trusted here, or the folder cannot be written.
        """
        for key in self.listed():
            if key.key_id == which:
                path = self.folder / f"{which}.pub"
                try:
                    path.replace(path.with_suffix(".revoked"))
                    self._sync()
                except OSError as error:
                    raise KeyFault(f"it cannot be written: {error.strerror}", where=str(path)) from error
                return key
        known = ", ".join(key.key_id for key in self.listed()) or "none"
        raise KeyFault(f"key {which!r} is not trusted here", where=str(self.folder), mend=f"trusted: {known}")

    def _files(self) -> Iterator[Path]:
        return (path for path in sorted(self.folder.glob("*")) if path.suffix in {".pub", ".revoked"})

    def _sync(self) -> None:
        for folder in (self.folder, self.folder.parent):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
