"""`certificates`: who may speak to whom, over a network and on serial lines with TLS."""

from __future__ import annotations

from typing import Annotated

import typer

from firmware_bridge.commands.options import AsJson, put_json
from firmware_bridge.link import certificates

app = typer.Typer(
    help="Make certificates: for network links, and for serial lines with TLS.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command()
def init(as_json: AsJson = False) -> None:
    """Make the site's authority and this host's certificate, once."""
    folder = certificates.default_folder()
    certificates.make_authority(folder)
    if as_json:
        put_json({"folder": str(folder)})
    else:
        print(f"authority and host certificate in {folder}")


@app.command()
def device(
    name: Annotated[str, typer.Argument(help="The device's name.")],
    address: Annotated[list[str] | None, typer.Option(help="Name or IP address that hosts connect to.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a device's certificate; it goes to the device as device.pem and device.key, with ca.pem."""
    folder = certificates.default_folder()
    certificate, key = certificates.make_device(folder, name, address or [])
    if as_json:
        put_json({"certificate": str(certificate), "key": str(key), "authority": str(folder / "ca.pem")})
        return
    print(f"copy to tls in the device's folder (or what EDGE_TLS names there): {folder / 'ca.pem'}")
    print(f"  as device.pem: {certificate}")
    print(f"  as device.key: {key}")
