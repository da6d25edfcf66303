"""`keys`: make signing keys, sign releases, and say whom a device trusts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

import typer

from firmware_bridge.commands.options import AsJson, people, put_json
from firmware_bridge.keys import DEFAULT_NAME, FOLDER_VARIABLE, KeyFault, OwnKeys, PublicKey, TrustedKeys
from firmware_bridge.release import Release, sign

Name = Annotated[str, typer.Argument(help="Name of one of your keys.")]
Folder = Annotated[Path | None, typer.Option("--keys", envvar=FOLDER_VARIABLE, help="Folder of your keys.")]
Root = Annotated[Path, typer.Option(envvar="EDGE_DEVICE_ROOT", help="The device's folder; run this on the device.")]

app = typer.Typer(help=__doc__, no_args_is_help=True)


@app.command()
def create(name: Name = DEFAULT_NAME, folder: Folder = None, as_json: AsJson = False) -> None:
    """Make a key of your own. `edge.deploy` makes the one named default when it needs it."""
    own = OwnKeys(folder)
    _put([own.create(name)], as_json=as_json)
    people.print(f"private key: {own.folder / f'{name}.pem'} (keep it to yourself, and a copy of it)")


@app.command("list")
def list_keys(
    root: Annotated[Path | None, typer.Option(help="A device's folder: list whom it trusts.")] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """List your own keys or, with --root, those that a device trusts."""
    own = OwnKeys(folder)
    _put(TrustedKeys(root / "keys").listed() if root else [own.public(name) for name in own.names()], as_json=as_json)


@app.command()
def show(name: Name = DEFAULT_NAME, folder: Folder = None, as_json: AsJson = False) -> None:
    """Show a key's public half: the line that `keys trust` takes on a device."""
    _put([OwnKeys(folder).public(name)], as_json=as_json)


@app.command()
def trust(
    key: Annotated[str, typer.Argument(help="A .pub file, or its line in quotes.")], root: Root, as_json: AsJson = False
) -> None:
    """Let a device take bundles that this key signed. From its first key on it takes no others."""
    path = Path(key)
    is_file = not key.startswith("ed25519 ")
    try:
        public = PublicKey.parse(
            path.read_text(encoding="ascii") if is_file else key, where=str(path) if is_file else ""
        )
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFault(f"it cannot be read: {error}", where=key, mend="give a .pub file, or its line") from None
    TrustedKeys(_device(root) / "keys").trust(public)
    _put([public], as_json=as_json)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `keys list --root` shows it.")],
    root: Root,
    as_json: AsJson = False,
) -> None:
    """Let a device trust a key no more, and never again; bundles that it signed do not run after the next start."""
    _put([TrustedKeys(_device(root) / "keys").revoke(key_id)], as_json=as_json)


@app.command("sign")
def sign_bundle(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")],
    *,
    version: Annotated[int, typer.Option(min=1, help="Place in the order of releases; devices take higher ones.")],
    key: Annotated[str, typer.Option(help="Which of your keys.")] = DEFAULT_NAME,
    back_from: Annotated[int | None, typer.Option(help="Permit to go back from this release.")] = None,
    back_used: Annotated[int, typer.Option(min=0, help="How many such permissions the device has used.")] = 0,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Sign a bundle: writes `release` into its folder, which goes with it to the device."""
    try:
        manifest = (bundle / "manifest.json").read_bytes()
        board = json.loads(manifest)["board"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KeyFault(f"no bundle: {error}", where=str(bundle), mend="name a bundle's folder") from None
    back = None if back_from is None else (back_from, back_used)
    release = Release(hashlib.sha256(manifest).hexdigest(), str(board), version, back)
    (bundle / "release").write_bytes(sign(release, OwnKeys(folder).load(key)))
    if as_json:
        put_json({"bundle": release.bundle_id, "board": release.board, "version": version, "back": back})
    people.print(f"release {version} of bundle {release.bundle_id[:12]} for {release.board}: {bundle / 'release'}")


def _device(root: Path) -> Path:
    if not root.is_dir():
        raise KeyFault("no device's folder", where=str(root), mend="name the --root of its supervisor")
    return root


def _put(keys: list[PublicKey], *, as_json: bool) -> None:
    if as_json:
        put_json([{"id": key.key_id, "name": key.name, "line": key.line()} for key in keys])
        return
    for key in keys:
        print(f"{key.key_id}  {key.line()}")
    if not keys:
        people.print("no keys")
