"""A site with an authority, a host and a device, each with a folder of certificates as it would have it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from firmware_bridge.link.certificates import make_authority, make_device
from firmware_bridge.link.security import secured
from firmware_bridge.wire.secure import Security
from firmware_bridge.wire.states import Role


@dataclass(frozen=True)
class Site:
    """Where the certificates lie: $EDGE_TLS of the two.

    Args:
        host: of the host, and of the authority.
        device: of the device.
    """

    host: Path
    device: Path

    def security(self, role: Role, peer: str = "") -> Security:
        """One end's TLS on a serial line.

        Args:
            role: whose.
            peer: the name that the other end's certificate must have; "": any of this site's.
        """
        _, made = secured(f"tls://{peer}/dev/line", role, self.host if role is Role.HOST else self.device)
        assert made is not None
        return made


def make_site(folder: Path, device: str = "press-7", addresses: tuple[str, ...] = ("127.0.0.1", "localhost")) -> Site:
    """Make one in this folder.

    Args:
        folder: is made if it is not there.
        device: name of the device.
        addresses: under which hosts connect to it over a network.
    """
    site = Site(folder / "host", folder / "device")
    make_authority(site.host)
    certificate, key = make_device(site.host, device, addresses)
    site.device.mkdir()
    for source, name in ((site.host / "ca.pem", "ca.pem"), (certificate, "device.pem"), (key, "device.key")):
        shutil.copy(source, site.device / name)
    return site
