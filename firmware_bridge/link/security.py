"""Whom this end believes, and what it shows: TLS 1.3 with a certificate of the site's authority at both ends.

    tls:///dev/ttyUSB0         a serial line, whoever is there must be a device of this site (for a device: a host)
    tls://press-7/dev/ttyUSB0  the same, and the device's certificate must have this name in it
    tls://auto                 the only serial port there is, see discover.py

On a serial line TLS goes through the session, which loses nothing (wire/secure.py); network links (tls.py) have it
below. Both use the same certificates (certificates.py), and Python's `ssl` does all of it.
"""

from __future__ import annotations

import ssl
from functools import partial
from pathlib import Path
from typing import Final

from firmware_bridge.errors import PortError
from firmware_bridge.link.certificates import DEVICE, HOST, default_folder
from firmware_bridge.link.discover import SECURE, resolve, secure_line
from firmware_bridge.wire.secure import Security, words
from firmware_bridge.wire.states import Role

_PURPOSES: Final = {Role.HOST: (ssl.PROTOCOL_TLS_CLIENT, HOST), Role.DEVICE: (ssl.PROTOCOL_TLS_SERVER, DEVICE)}


def context(role: Role, folder: Path | None, where: str) -> ssl.SSLContext:
    """TLS 1.3, the peer's certificate demanded and verified against the site's authority and for its purpose.

    Args:
        role: which of the folder's certificates to show, and what the peer's must be for.
        folder: of the certificates; None: the user's.
        where: the port, for errors.

    Raises:
        PortError: there are no certificates.
    """
    protocol, name = _PURPOSES[role]
    folder = folder or default_folder()
    made = ssl.SSLContext(protocol)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    if role is Role.DEVICE:
        made.num_tickets = 0  # no connection is ever resumed
    try:
        made.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
        made.load_verify_locations(folder / "ca.pem")
    except OSError as error:
        what = words(error) if isinstance(error, ssl.SSLError) else error.strerror or str(error)
        mend = "make them: python -m firmware_bridge certificates init"
        raise PortError(f"no certificates in {folder}: {what}", where=where, mend=mend) from None
    return made


def secured(port: str, role: Role, folder: Path | None = None) -> tuple[str, Security | None]:
    """What to open for this port, and the TLS of the sessions there; None: none, or the link below has it.

    Args:
        port: as the user writes it.
        role: of this end.
        folder: of the certificates; None: the user's.

    Raises:
        PortError: "auto" finds none or several; there are no certificates; a device names a peer.
    """
    name = resolve(port)
    found = secure_line(name)
    if found is None:
        return name, None
    peer, path = found
    if peer and role is Role.DEVICE:
        raise PortError("a device takes every host of its site", where=port, mend=f"write {SECURE}{path}")
    made = context(role, folder, port)
    made.check_hostname = bool(peer)
    return path, partial(made.wrap_bio, server_side=role is Role.DEVICE, server_hostname=peer or None)
