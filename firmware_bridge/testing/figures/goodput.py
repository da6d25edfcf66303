"""How much of a line's rate reaches a blob: over real ptys in real time, and in virtual time under every fault."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from firmware_bridge.client import Client
from firmware_bridge.device import DeviceEndpoint
from firmware_bridge.errors import LinkError
from firmware_bridge.host import operations
from firmware_bridge.host.endpoint import HostEndpoint
from firmware_bridge.link.serial import open_port
from firmware_bridge.testing.device import MemoryDevice
from firmware_bridge.testing.faulty import Faults
from firmware_bridge.testing.pair import End, Pair
from firmware_bridge.testing.ptyline import pty_line
from firmware_bridge.testing.site import make_site
from firmware_bridge.transfer import Source
from firmware_bridge.wire.states import Role


@dataclass(frozen=True)
class Goodput:
    """What an upload achieved.

    Args:
        bytes: of the blob.
        seconds: it took, from the announcement to the device's word that it is stored.
        share: of the line's rate.
        retransmitted: packets sent again, of
        sent: packets sent.
    """

    bytes: int
    seconds: float
    share: float
    retransmitted: int
    sent: int


def over_ptys(size: int, faults: Faults, seed: int = 1, *, tls: bool = False) -> Goodput:
    """Upload a blob of random bytes over two ptys; line and device are processes of their own.

    Args:
        size: bytes.
        faults: of the line; its rate must be given.
        seed: of the blob and of the faults.
        tls: whether the two ends prove to each other who they are.

    Raises:
        LinkError: it did not get through.
    """
    digest, blob = _blob(size, seed)
    assert faults.bytes_per_second is not None
    with pty_line(faults, seed) as (host_path, device_path), tempfile.TemporaryDirectory() as folder:
        site = make_site(Path(folder))
        command = [sys.executable, "-m", "firmware_bridge.testing", "device"]
        command += ["--port", f"tls://{device_path}" if tls else device_path]
        environment = {**os.environ, "EDGE_TLS": str(site.device)}
        device = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
        try:
            with Client(open_port(host_path), security=site.security(Role.HOST) if tls else None) as client:
                begun = time.monotonic()
                client.upload(digest, blob)
                seconds = time.monotonic() - begun
                counters = client.counters()
        finally:
            device.kill()
            device.wait()
    share = size / seconds / faults.bytes_per_second
    return Goodput(size, seconds, share, counters["retransmitted"], counters["sent"])


def in_virtual_time(size: int, faults: Faults, seed: int = 1) -> Goodput:
    """The same between the two ends in memory, under a virtual clock: no other load of the machine disturbs it.

    Raises:
        LinkError: it did not get through within an hour of virtual time.
    """
    digest, blob = _blob(size, seed)
    rate = faults.bytes_per_second
    assert rate is not None
    chance = random.Random(seed)  # noqa: S311  a simulation wants the same numbers again
    host = HostEndpoint("line", epoch=lambda: chance.randrange(1, 2**32), bytes_per_second=rate)
    handler = MemoryDevice()
    device = DeviceEndpoint(handler, epoch=lambda: chance.randrange(1, 2**32), bytes_per_second=rate)
    upload = operations.upload(Source(digest, blob), operations.UploadCount(), lambda: ())
    task = host.start(upload)

    def host_work() -> None:
        task.notes.clear()
        host.process(pair.now)

    def device_work() -> None:
        while device.process():
            pass

    pair = Pair(End(host.connection, host_work), End(device.connection, device_work), faults, seed)
    if not pair.run(lambda: host.info is not None, 3600.0):
        raise LinkError("the device does not answer")
    begun = pair.now
    if not pair.run(lambda: task.is_done, 3600.0):
        raise LinkError("the upload did not end within an hour")
    task.outcome()
    seconds = pair.now - begun
    sending = host.connection.session.sending
    return Goodput(size, seconds, size / seconds / rate, sending.retransmitted, sending.sent)


def _blob(size: int, seed: int) -> tuple[str, bytes]:
    blob = random.Random(seed).randbytes(size)  # noqa: S311  the same bytes again
    return hashlib.sha256(blob).hexdigest(), blob
