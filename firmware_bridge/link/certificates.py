"""Certificates for links whose two ends prove who they are, over a network or a serial line.

One authority per site, and a certificate for each host and each device that it vouches for:

    <config>/tls/ca.pem, ca.key          the authority; its key stays where it was made
    <config>/tls/host.pem, host.key      what this host shows to devices
    <config>/tls/NAME.pem, NAME.key      what a device shows to hosts: there it is tls/device.pem, tls/device.key

`<config>` is the user's configuration folder, or `$EDGE_TLS` in place of `<config>/tls`. Keys are ECDSA P-256, readable
by their owner alone. Made with the `cryptography` library; the links themselves are Python's `ssl`.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from boards.errors import ExitCode, KitError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

FOLDER_VARIABLE: Final = "EDGE_TLS"
AUTHORITY: Final = "ca"
HOST: Final = "host"
DEVICE: Final = "device"
_AUTHORITY_DAYS: Final = 3650
_DAYS: Final = 825
_BACKDATED: Final = dt.timedelta(days=1)
"""A board without a battery-backed clock wakes up in the past."""


class CertificateFault(KitError):  # noqa: N818  names what happened
    """A certificate that is missing, or there already."""

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE


def default_folder() -> Path:
    """Where this machine's certificates lie."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    import platformdirs  # noqa: PLC0415  a device names its folder, and needs this package no more

    return Path(platformdirs.user_config_dir("modiff-edge")) / "tls"


def make_authority(folder: Path) -> None:
    """Make the site's authority and this host's certificate; nothing happens if they are there.

    Raises:
        OSError: the folder cannot be written.
    """
    from cryptography import x509  # noqa: PLC0415  slow to import, and no device makes certificates

    if (folder / "ca.pem").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    key = _new_key()
    builder = _builder("modiff-edge site authority", key.public_key(), _AUTHORITY_DAYS)
    builder = builder.issuer_name(_name("modiff-edge site authority"))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    _write(folder, AUTHORITY, key, _signed(builder, key))
    _issue(folder, HOST, ["modiff-edge host"], is_device=False)


def make_device(folder: Path, name: str, addresses: Sequence[str]) -> tuple[Path, Path]:
    """Make a device's certificate.

    Args:
        folder: with the authority in it.
        name: of the device; names the files.
        addresses: host names and IP addresses under which hosts connect to it.

    Returns:
        Certificate and key.

    Raises:
        CertificateFault: there is no authority here, there is such a certificate, or the name is taken.
    """
    if name in {AUTHORITY, HOST} or not name.replace("-", "").replace("_", "").isalnum():
        raise CertificateFault("no name for a device", where=name, mend="letters, digits, - and _, not ca or host")
    if not (folder / "ca.key").exists():
        raise CertificateFault("no authority here", where=str(folder), mend="make it: certificates init")
    if (folder / f"{name}.pem").exists():
        raise CertificateFault("there is one", where=str(folder / f"{name}.pem"), mend="remove it to make another")
    _issue(folder, name, [name, *addresses], is_device=True)
    return folder / f"{name}.pem", folder / f"{name}.key"


def _issue(folder: Path, name: str, addresses: Sequence[str], *, is_device: bool) -> None:
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.x509.oid import ExtendedKeyUsageOID  # noqa: PLC0415

    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    signer = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    key = _new_key()
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if is_device else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = _builder(name, key.public_key(), _DAYS).issuer_name(authority.subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
    if is_device:
        names = x509.SubjectAlternativeName([_address(each) for each in addresses])
        builder = builder.add_extension(names, critical=False)
    identity = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())  # type: ignore[arg-type]
    builder = builder.add_extension(identity, critical=False)
    _write(folder, name, key, _signed(builder, signer))  # type: ignore[arg-type]  # made above: an EC key


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    return ec.generate_private_key(ec.SECP256R1())


def _builder(name: str, key: object, days: int) -> x509.CertificateBuilder:
    from cryptography import x509  # noqa: PLC0415

    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key)  # type: ignore[arg-type]  # an EC public key
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)  # type: ignore[arg-type]
    )


def _name(text: str) -> x509.Name:
    from cryptography import x509  # noqa: PLC0415
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    from cryptography import x509  # noqa: PLC0415

    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _address(text: str) -> x509.GeneralName:
    from cryptography import x509  # noqa: PLC0415

    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _signed(builder: x509.CertificateBuilder, key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415

    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _write(folder: Path, name: str, key: EllipticCurvePrivateKey, certificate: bytes) -> None:
    """The key first, readable by its owner alone from its first moment."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = os.open(folder / f"{name}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(private)
    (folder / f"{name}.pem").write_bytes(certificate)
