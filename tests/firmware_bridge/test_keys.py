"""Keys and releases: private halves stay private, and whatever is not exactly what was signed is refused."""

import base64
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from boards.errors import KitError
from firmware_bridge.__main__ import app
from firmware_bridge.keys import FOLDER_VARIABLE, KeyFault, OwnKeys, PublicKey, TrustedKeys, default_folder
from firmware_bridge.release import Release, open_signed, sign

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RAW = KEY.public_key().public_bytes_raw()
RELEASE = Release("ab" * 32, "rpi5", 7)


def test_a_key_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    own = OwnKeys(tmp_path / "config" / "keys")
    assert own.names() == []
    public = own.create()
    path = own.folder / "default.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(own.folder.stat().st_mode) == 0o700
    assert own.names() == ["default"]
    assert own.public() == public
    assert PublicKey.parse((own.folder / "default.pub").read_text()) == public
    before = path.read_bytes()
    with pytest.raises(KeyFault, match="there is a key 'default' already"):
        own.create()
    assert path.read_bytes() == before
    assert own.create("factory").key_id != public.key_id


def test_keys_that_are_none(tmp_path: Path) -> None:
    own = OwnKeys(tmp_path)
    with pytest.raises(KeyFault, match=r"keys here: none.*keys create default"):
        own.load()
    with pytest.raises(KeyFault, match="is no name for a key"):
        own.create("../x")
    (tmp_path / "bad.pem").write_bytes(b"nothing")
    with pytest.raises(KeyFault, match="not an unencrypted private key"):
        own.load("bad")
    other = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "other.pem").write_bytes(other)
    with pytest.raises(KeyFault, match="not an Ed25519 key"):
        own.load("other")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KeyFault, match="cannot be made"):
        OwnKeys(tmp_path / "file").create()
    with pytest.raises(KeyFault, match="cannot be written"):
        OwnKeys(Path("/proc")).create()


def test_half_a_key_on_a_full_disk_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyFault, match="No space left"):
        OwnKeys(tmp_path).create()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_keys_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert default_folder() == tmp_path / "config" / "modiff-edge" / "keys"


def test_trusting_and_revoking(tmp_path: Path) -> None:
    trusted = TrustedKeys(tmp_path / "keys")
    assert (trusted.is_provisioned, trusted.listed()) == (False, [])
    key = PublicKey(RAW, "a name")
    trusted.trust(key)
    assert trusted.is_provisioned
    assert trusted.listed() == [key]
    assert trusted.trusts(RAW)
    assert not trusted.trusts(bytes(32))
    with pytest.raises(KeyFault, match=f"'x' is not trusted here.*trusted: {key.key_id}"):
        trusted.revoke("x")
    assert trusted.revoke(key.key_id) == key
    assert not trusted.trusts(RAW)
    assert trusted.is_provisioned  # it does not take everything again
    with pytest.raises(KeyFault, match="was revoked here"):
        trusted.trust(key)
    (tmp_path / "keys" / "junk.pub").write_text("junk")
    assert trusted.listed() == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"")
    with pytest.raises(KeyFault, match="cannot be written"):
        TrustedKeys(tmp_path / "keys").trust(PublicKey(RAW, ""))


def test_a_key_that_cannot_be_revoked_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusted = TrustedKeys(tmp_path / "keys")
    trusted.trust(PublicKey(RAW, ""))

    def broken(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(KeyFault, match="Read-only file system"):
        trusted.revoke(PublicKey(RAW, "").key_id)
    assert trusted.trusts(RAW)


@pytest.mark.parametrize(
    "text",
    ["", "ed25519", "ed25519 " + "A" * 44, "rsa " + base64.b64encode(RAW).decode(), "ed25519 AAAA name"],
)
def test_a_line_that_is_no_key(text: str) -> None:
    with pytest.raises(KeyFault, match=r"not a public key.*\.pub file"):
        PublicKey.parse(text)


def test_golden_bytes_of_a_release() -> None:
    assert RELEASE.to_bytes().hex() == (
        "a5646261636bf665626f6172646472706935"
        "6662756e646c655820" + "ab" * 32 + "67707572706f7365756d6f646966662d656467652072656c6561736520"
        "316776657273696f6e07"
    )
    signed = sign(RELEASE, KEY)
    assert cbor2.loads(signed)["key"] == RAW
    assert len(signed) < 300


@pytest.mark.parametrize("back", [None, (9, 0), (2**62, 3)])
def test_what_is_signed_is_read(back: tuple[int, int] | None) -> None:
    release = replace(RELEASE, back=back)
    signed = open_signed(sign(release, KEY))
    assert (signed.release, signed.key) == (release, RAW)


def test_every_byte_counts() -> None:
    data = sign(replace(RELEASE, back=(9, 0)), KEY)
    for position in range(len(data)):
        for bit in (0x01, 0x80):
            changed = bytearray(data)
            changed[position] ^= bit
            with pytest.raises(ValueError, match=r".+"):
                open_signed(bytes(changed))
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r".+"):
            open_signed(data[:length])


def envelope(statement: bytes) -> bytes:
    return cbor2.dumps({"key": RAW, "signature": KEY.sign(statement), "statement": statement}, canonical=True)


def statement(**changes: object) -> bytes:
    return cbor2.dumps({**cbor2.loads(RELEASE.to_bytes()), **changes}, canonical=True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 5000,
        cbor2.dumps([1]),
        cbor2.dumps({"key": RAW}),
        cbor2.dumps({"key": RAW, "signature": "text", "statement": b""}),
        cbor2.dumps({"key": RAW[:31], "signature": bytes(64), "statement": b""}),
        envelope(b""),
        envelope(statement(purpose="something else")),
        envelope(statement(bundle=b"short")),
        envelope(statement(version=0)),
        envelope(statement(version=True)),
        envelope(statement(version=2**63)),
        envelope(statement(board=b"rpi5")),
        envelope(statement(back=[1])),
        envelope(statement(back=[1, -1])),
        envelope(statement(back=[1, "2"])),
        envelope(statement(more=1)),
    ],
)
def test_what_is_signed_but_no_release(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        open_signed(data)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_garbage_raises_nothing_else(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        open_signed(data)


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def keys(*words: str, folder: Path) -> Done:
    done = CliRunner().invoke(app, ["keys", *words], env={"EDGE_KEYS": str(folder)})
    if isinstance(done.exception, KitError):
        return Done(done.exception.exit_code, done.stdout, str(done.exception))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def test_the_command(tmp_path: Path) -> None:
    device, own = tmp_path / "device", tmp_path / "own"
    device.mkdir()
    assert keys("list", folder=own).stdout == ""
    made = keys("create", folder=own)
    assert made.returncode == 0, made.stderr
    line = keys("show", folder=own).stdout.partition("  ")
    assert PublicKey.parse(line[2].strip()).key_id == line[0]
    assert keys("list", folder=own).stdout == made.stdout
    assert keys("trust", str(own / "default.pub"), "--root", str(device), folder=own).returncode == 0
    assert keys("trust", line[2].strip(), "--root", str(device), folder=own).returncode == 0
    assert keys("list", "--root", str(device), folder=own).stdout == made.stdout
    (tmp_path / "manifest.json").write_text('{"board": "rpi5"}')
    sign_it = ("sign", str(tmp_path), "--version", "3", "--back-from", "9", "--json")
    assert '"version": 3' in keys(*sign_it, folder=own).stdout
    release = open_signed((tmp_path / "release").read_bytes()).release
    assert (release.board, release.version, release.back) == ("rpi5", 3, (9, 0))
    assert keys("revoke", line[0], "--root", str(device), folder=own).returncode == 0
    assert TrustedKeys(device / "keys").listed() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "none"), "no key"),
        (("trust", "none.pub", "--root", "/"), "cannot be read"),
        (("trust", "ed25519 x", "--root", "/"), "not a public key"),
        (("revoke", "x", "--root", "/none"), "no device's folder"),
        (("sign", "/none", "--version", "1"), "no bundle"),
        (("sign", "/none"), "--version"),
    ],
)
def test_what_the_command_refuses(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = keys(*words, folder=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
