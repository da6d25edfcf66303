"""`Fleet`: finds devices, gives each a worker, and goes on finding them while they are plugged in and pulled out.

A port is a candidate until its device has said who it is: the same device on two ports is served on the first, and the
second is named in the log. A port on which nobody answers is tried again, less and less often.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from boards.errors import KitError
from firmware_bridge.client import Client
from firmware_bridge.fleet.worker import Watcher, Worker
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import JobEvent
from firmware_bridge.link.discover import named
from firmware_bridge.link.serial import DEFAULT_BAUD
from firmware_bridge.queue.errors import QueueFault
from firmware_bridge.queue.queue import LEASE, JobQueue
from firmware_bridge.queue.records import lock_path

log = logging.getLogger(__name__)

SCAN: Final = 1.0
"""Seconds between two looks for new ports."""
CONNECT: Final = 5.0
"""Seconds that a device has to answer; a fleet that is left waits for it at most as long."""
LONGEST_REST: Final = 60.0
"""Seconds at most until a port on which nobody answered is tried again."""


@dataclass
class _Port:
    """A port that is served, or was tried. ``rest``: seconds until it is tried again after it failed."""

    name: str
    thread: threading.Thread | None = None
    worker: Worker | None = None
    device_id: str | None = None
    trouble: str = ""
    rest: float = SCAN
    again: float = 0.0


@dataclass(frozen=True)
class PortStatus:
    """What the fleet knows of a port; ``trouble`` says why no device is served there."""

    port: str
    device_id: str | None
    trouble: str


class Fleet:
    """Serves a queue with every device that can be found; use it as a context manager.

    Args:
        queue: the jobs.
        ports: the ports to serve; None, or "auto" among them: whatever is plugged in, now and later.
        baud: of real UARTs.
        watch: told every event, in the workers' threads.
        connect: opens a port; raises BridgeError.
        lease: seconds after which the jobs of a device that is not seen go to others.
        preview_every: steps between two previews of each job; 0: none.

    Raises:
        QueueFault: another process serves this queue.
    """

    def __init__(
        self,
        queue: JobQueue,
        ports: Sequence[str] | None = None,
        *,
        baud: int = DEFAULT_BAUD,
        watch: Watcher | None = None,
        connect: Callable[[str, int], Client] | None = None,
        lease: float = LEASE,
        preview_every: int = 0,
    ) -> None:
        self._preview_every = preview_every
        self._queue = queue
        self._named = ports
        self._baud = baud
        self._watch = watch if watch is not None else _nobody
        self._connect = connect if connect is not None else _open
        self._lease = lease
        self._ports: dict[str, _Port] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._only = _only_one(queue.path)
        self._thread = threading.Thread(target=self._scan, name="fleet", daemon=True)

    def __enter__(self) -> Self:
        """Begins to serve."""
        self._only.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends every worker. Jobs that devices have stay theirs; who serves the queue next asks for them."""
        self._stopping.set()
        self._thread.join()
        with self._lock:
            ports = list(self._ports.values())
        for port in ports:
            if port.worker is not None:
                port.worker.stop()
        for port in ports:
            if port.thread is not None:
                port.thread.join()
        self._only.__exit__(kind, error, trace)

    def status(self) -> list[PortStatus]:
        """Every port, as it is now."""
        with self._lock:
            return [PortStatus(port.name, port.device_id, port.trouble) for port in self._ports.values()]

    # ------------------------------------------------------------------ inside

    def _scan(self) -> None:
        while not self._stopping.is_set():
            found = named(self._named)
            now = time.monotonic()
            with self._lock:
                for name in set(self._ports) - set(found):
                    if self._ports[name].thread is None:
                        del self._ports[name]
                for name in found:
                    port = self._ports.setdefault(name, _Port(name))
                    if port.thread is None and now >= port.again:
                        port.thread = threading.Thread(target=self._serve, args=(port,), name=name, daemon=True)
                        port.thread.start()
            with contextlib.suppress(QueueFault):  # the next round tries again; workers report it
                self._queue.reclaim(self._lease)
            self._stopping.wait(SCAN)

    def _serve(self, port: _Port) -> None:
        """One port's thread: connect, be a worker until the link is gone, say why."""
        trouble = ""
        try:
            with _leaving_jobs(self._connect(port.name, self._baud)) as client:
                if self._claim(port, client.info):
                    port.rest = SCAN
                    log.info("%s: %s %s", port.name, client.info.board, client.info.device_id)
                    assert port.worker is None
                    port.worker = Worker(
                        client, port.name, self._queue, self._watch, time.monotonic, preview_every=self._preview_every
                    )
                    if not self._stopping.is_set():
                        port.worker.run()
                else:
                    trouble = f"device {client.info.device_id} is served on another port"
        except KitError as error:
            trouble = str(error)
        if trouble and trouble != port.trouble:
            log.warning("%s: %s", port.name, trouble)
        with self._lock:
            port.trouble = trouble
            port.device_id = port.worker = port.thread = None
            port.again = time.monotonic() + port.rest
            port.rest = min(LONGEST_REST, port.rest * 2)

    def _claim(self, port: _Port, info: DeviceInfo) -> bool:
        """Whether this port is the one on which the device is served."""
        with self._lock:
            if any(other.device_id == info.device_id for other in self._ports.values()):
                return False
            port.device_id = info.device_id
            port.trouble = ""
            return True


def _nobody(_info: DeviceInfo, _event: JobEvent) -> None:
    """Watches nothing."""


def _open(port: str, baud: int) -> Client:
    return Client.open(port, baud=baud, connect_timeout=CONNECT)


@contextlib.contextmanager
def _leaving_jobs(client: Client) -> Iterator[Client]:
    """A client whose jobs go on on the device when it is left: the queue knows of them."""
    try:
        yield client
    finally:
        client.close(cancel=False)


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """One process serves a queue; the lock goes with the process, however it ends."""
    lock = lock_path(path)
    try:
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise QueueFault(f"the queue cannot be served: {error.strerror}", where=str(lock)) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            mend = "put jobs in with `send`, that process runs them; or stop it"
            raise QueueFault("another process serves this queue", where=str(path), mend=mend) from None
        yield
    finally:
        os.close(file)
