"""Network links with mutual authentication: TLS 1.3, both ends show a certificate of the site's authority.

    tls://HOST:PORT           a host connects; HOST must stand in the device's certificate
    tls-listen://HOST:PORT    a device listens; one host at a time, the others wait

Python's `ssl` does all of it. Whom it believes: security.py.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from firmware_bridge import limits
from firmware_bridge.closing import Closing
from firmware_bridge.errors import LinkError, PeerError, PortError
from firmware_bridge.link.security import context
from firmware_bridge.link.wait import wait_for
from firmware_bridge.wire.secure import words
from firmware_bridge.wire.states import Role

LISTEN: Final = "tls-listen://"
_HANDSHAKE_SECONDS: Final = 5.0
"""Longer takes no handshake between two that mean it."""


class TlsLink(Closing):
    """An authenticated connection; a `Link`. Made by `connect` and by `Listener.accept`.

    Args:
        connection: after its handshake.
        name: what the user calls it.
    """

    bytes_per_second: float | None = None

    def __init__(self, connection: ssl.SSLSocket, name: str) -> None:
        self.name = name
        self._connection = connection
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        """The file to wait for."""
        return self._connection.fileno()

    def read(self) -> bytes:
        """What has arrived, one TLS record at most; empty if nothing has. LinkError: the link is gone.

        A record holds no more than READ_SIZE bytes, so nothing stays behind in the TLS layer, unseen by a wait.
        """
        try:
            data = self._connection.recv(limits.READ_SIZE)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b""
        except OSError as error:
            raise LinkError(f"the link is gone: {_words(error)}", where=self.name) from None
        if not data:
            raise LinkError("the other end has closed the link", where=self.name)
        return data

    def write(self, data: bytes | memoryview) -> int:
        """Hand over as many bytes as the link takes now, and say how many. LinkError: the link is gone."""
        try:
            return self._connection.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError as error:
            raise LinkError(f"the link is gone: {_words(error)}", where=self.name) from None

    def set_baud(self, baud: int) -> None:
        """A network has no baud rate."""
        raise LinkError(f"no link to set to {baud} baud", where=self.name)

    def close(self) -> None:
        """Hang up. Closing twice is fine."""
        self._connection.close()


def connect(url: str, folder: Path | None = None) -> TlsLink:
    """Connect to a device as this host.

    Args:
        url: tls://HOST:PORT.
        folder: of the certificates; None: the user's.

    Raises:
        PortError: nobody listens, or one of the two does not believe the other.
    """
    address = _address(url)
    tls = context(Role.HOST, folder, url)
    try:
        plain = socket.create_connection(address, _HANDSHAKE_SECONDS)
    except OSError as error:
        raise PortError(
            f"cannot connect: {_words(error)}", where=url, mend="check host and port, and that a device listens"
        ) from None
    try:
        return TlsLink(tls.wrap_socket(plain, server_hostname=address[0]), url)
    except OSError as error:
        plain.close()
        raise PeerError(_words(error), where=url) from None


class Listener(Closing):
    """A device's open door; use it as a context manager.

    Args:
        url: tls-listen://HOST:PORT; HOST 0.0.0.0 means every interface, PORT 0 any that is free.
        folder: of the certificates, with ca.pem, device.pem and device.key; None: the user's.

    Raises:
        PortError: the address cannot be listened on, or there are no certificates.
    """

    def __init__(self, url: str, folder: Path | None = None) -> None:
        self._context = context(Role.DEVICE, folder, url)
        try:
            self._socket = socket.create_server(_address(url), backlog=1)
        except OSError as error:
            raise PortError(f"cannot listen: {_words(error)}", where=url, mend="choose another port") from None
        self.port: int = self._socket.getsockname()[1]

    def accept(self, seconds: float) -> TlsLink | None:
        """The next host that proves who it is; None: none came within these seconds.

        Raises:
            LinkError: one came that could not prove it; it was sent away.
        """
        readable, _ = wait_for([self._socket.fileno()], [], seconds)
        if not readable:
            return None
        plain, peer = self._socket.accept()
        name = f"{peer[0]}:{peer[1]}"
        plain.settimeout(_HANDSHAKE_SECONDS)
        try:
            return TlsLink(self._context.wrap_socket(plain, server_side=True), name)
        except OSError as error:
            plain.close()
            raise LinkError(f"a host was sent away: {_words(error)}", where=name) from None

    def close(self) -> None:
        """Listen no longer."""
        self._socket.close()


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    port: int | None = None
    with contextlib.suppress(ValueError):
        port = parts.port
    if not parts.hostname or port is None or parts.path not in {"", "/"}:
        raise PortError("no address", where=url, mend=f"write {parts.scheme}://HOST:PORT")
    return parts.hostname, port


def _words(error: OSError) -> str:
    return words(error) if isinstance(error, ssl.SSLError) else error.strerror or str(error)
