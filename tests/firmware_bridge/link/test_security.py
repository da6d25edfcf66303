"""Serial lines whose two ends prove who they are: how they are named, and over real ptys."""

import hashlib
import itertools
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from firmware_bridge.client import Client
from firmware_bridge.errors import BridgeError, DeviceRefused, LinkError, PeerError, PortError
from firmware_bridge.fleet.fleet import Fleet
from firmware_bridge.jobs import JobRequest
from firmware_bridge.link.discover import PORTS_VARIABLE, named
from firmware_bridge.link.security import secured
from firmware_bridge.queue.queue import JobQueue
from firmware_bridge.testing.bench import Bench, Order
from firmware_bridge.testing.device import MemoryDevice
from firmware_bridge.testing.faulty import Faults
from firmware_bridge.testing.ptyline import FrameFaults
from firmware_bridge.testing.site import Site
from firmware_bridge.wire import frame, packet
from firmware_bridge.wire.packet import Kind, Packet
from firmware_bridge.wire.states import Role


class Forger:
    """Somebody on the line who knows the frames and makes their CRC right again.

    Args:
        change: what becomes of the body of the n-th DATA packet.
    """

    def __init__(self, change: Callable[[int, bytes], bytes]) -> None:
        self._change = change
        self._decoder = frame.FrameDecoder()
        self._numbers = itertools.count()
        self.is_at_work = False

    def __call__(self, data: bytes) -> bytes:
        return b"".join(self._pass(piece) for piece in self._decoder.feed(data))

    def _pass(self, piece: frame.Packet | frame.Foreign) -> bytes:
        if isinstance(piece, frame.Foreign):
            return piece.data + b"\0"
        sent = packet.decode(piece.data)
        assert isinstance(sent, Packet)
        if sent.kind is Kind.DATA and self.is_at_work:
            body = self._change(next(self._numbers), sent.body)
            sent = Packet(
                sent.kind,
                sent.session,
                sent.offset,
                sent.acknowledged,
                sent.ranges,
                sent.credit,
                body[: len(sent.body)],
            )
        return frame.encode(sent.encode())


@pytest.mark.parametrize(
    ("port", "name", "is_secured"),
    [
        ("/dev/ttyUSB0", "/dev/ttyUSB0", False),
        ("socket://127.0.0.1:7", "socket://127.0.0.1:7", False),
        ("tls://pi:7000", "tls://pi:7000", False),  # the link below has it
        ("tls:///dev/ttyUSB0", "/dev/ttyUSB0", True),
        ("tls://press-7/dev/serial/by-path/pci-0000:00:14.0-usb-0:1:1.0-port0", None, True),
        ("tls://auto", "/dev/null", True),
        ("auto", "/dev/null", False),
    ],
)
def test_what_is_opened_and_how(
    port: str, name: str | None, is_secured: bool, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PORTS_VARIABLE, "/dev/null")
    opened, security = secured(port, Role.HOST, site.host)
    assert opened == (name or port.removeprefix("tls://press-7"))
    assert (security is not None) == is_secured


def test_a_device_takes_every_host_and_nobody_goes_without_certificates(site: Site, tmp_path: Path) -> None:
    assert secured("tls:///dev/ttyS0", Role.DEVICE, site.device)[1] is not None
    with pytest.raises(PortError, match="every host"):
        secured("tls://host-1/dev/ttyS0", Role.DEVICE, site.device)
    for role in Role:
        with pytest.raises(PortError, match="no certificates") as caught:
            secured("tls:///dev/ttyS0", role, tmp_path)
        assert caught.value.exit_code == 8


def test_every_port_that_is_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    monkeypatch.setenv(PORTS_VARIABLE, f"{tmp_path}/*")
    both = [f"{tmp_path}/a", f"{tmp_path}/b"]
    assert named(None) == named([]) == named(["auto"]) == both
    assert named(["tls://auto"]) == [f"tls://{path}" for path in both]
    assert named(["tls://pi:1", "/dev/x"]) == ["tls://pi:1", "/dev/x"]


@pytest.mark.parametrize("faults", [Faults(loss=0.05, duplication=0.02, reordering=0.02), Faults(bit_errors=3e-5)])
def test_uploads_and_jobs_pass_over_a_bad_line(faults: Faults, site: Site, make_bench: Callable[..., Bench]) -> None:
    line = {name: FrameFaults(faults, random.Random(name)) for name in ("to_device", "to_host")}
    bench, device = make_bench(**line), MemoryDevice()
    bench.start(device, site.security(Role.DEVICE))
    blob = random.Random(1).randbytes(300_000)
    digest = hashlib.sha256(blob).hexdigest()
    with bench.client(20, site.security(Role.HOST, "press-7")) as client:
        client.upload(digest, blob)
        payload = blob[:50_000]
        assert client.run(JobRequest("a", "echo", {}, payload)).payload == payload[::-1]
        assert client.counters()["retransmitted"] > 0
    assert device.store.complete[digest] == blob


def test_who_is_sent_away_is_told_why_and_what_to_do(site: Site, stranger: Site, bench: Bench) -> None:
    device = MemoryDevice()
    bench.start(device, site.security(Role.DEVICE))
    with pytest.raises(DeviceRefused, match="hosts with TLS only") as plain:
        bench.client()
    assert (plain.value.exit_code, "tls://" in plain.value.mend) == (10, True)
    for security in (stranger.security(Role.HOST), site.security(Role.HOST, "press-8")):
        with pytest.raises(PeerError, match="not who it should be") as caught:
            bench.client(security=security)
        assert (caught.value.exit_code, "certificates" in caught.value.mend) == (8, True)
    assert device.sessions == 0
    with bench.client(security=site.security(Role.HOST)) as client:
        assert client.info.device_id == "memory"
    bench.end(Order.STOP)
    bench.start(device)
    with pytest.raises(PeerError, match="without TLS"):
        bench.client(security=site.security(Role.HOST))


def test_a_device_that_shows_a_hosts_certificate_is_not_believed(site: Site, bench: Bench, tmp_path: Path) -> None:
    for source, target in (("ca.pem", "ca.pem"), ("host.pem", "device.pem"), ("host.key", "device.key")):
        (tmp_path / target).write_bytes((site.host / source).read_bytes())
    bench.start(MemoryDevice(), secured("tls:///dev/line", Role.DEVICE, tmp_path)[1])
    with pytest.raises(PeerError, match="purpose"):
        bench.client(security=site.security(Role.HOST))


def flip(_number: int, body: bytes) -> bytes:
    edited = bytearray(body)
    edited[len(body) // 2] ^= 1
    return bytes(edited)


def now_and_then(number: int, body: bytes) -> bytes:
    return flip(number, body) if number == 2 else body


def plain(_number: int, body: bytes) -> bytes:
    return (b"\x0b\x00\xa2am\x18\x2cdtextax" * len(body))[: len(body)]


def run_again(client: Client, payload: bytes) -> bytes:
    """A result, once the sessions that were forged already have ended: each of them ends what waits for it."""
    for number in range(10):
        try:
            return client.run(JobRequest(f"after-{number}", "echo", {}, payload), timeout=10).payload
        except PeerError:
            continue
    pytest.fail("no session was had after the forger had gone")


class Replayer:
    """Says again what was said first."""

    def __init__(self) -> None:
        self._first = b""

    def __call__(self, number: int, body: bytes) -> bytes:
        self._first = self._first or body
        return (self._first + body[len(self._first) :]) if number else body


@pytest.mark.parametrize("way", ["to_device", "to_host"])
@pytest.mark.parametrize("make", [lambda: flip, lambda: plain, Replayer], ids=["edits", "injections", "replays"])
def test_a_forger_on_the_line_reaches_nobody(
    way: str, make: Callable[[], Callable[[int, bytes], bytes]], site: Site, make_bench: Callable[..., Bench]
) -> None:
    forger = Forger(make())
    bench, device = make_bench(**{way: forger}), MemoryDevice()
    bench.start(device, site.security(Role.DEVICE))
    client = bench.client(security=site.security(Role.HOST))
    try:
        payload = bytes(range(256)) * 100
        assert client.run(JobRequest("before", "echo", {}, payload)).payload == payload[::-1]
        forger.is_at_work = True
        with pytest.raises(BridgeError) as caught:
            client.run(JobRequest("forged", "echo", {}, payload), timeout=10)
        assert isinstance(caught.value, LinkError | PeerError)
        if way == "to_device":
            assert device.started == ["before"]
        forger.is_at_work = False
        assert run_again(client, payload) == payload[::-1]
    finally:
        client.close()


def test_a_session_that_was_forged_once_is_opened_anew_and_the_upload_goes_on(
    site: Site, make_bench: Callable[..., Bench]
) -> None:
    forger = Forger(now_and_then)
    bench, device = make_bench(to_device=forger), MemoryDevice()
    bench.start(device, site.security(Role.DEVICE))
    blob = os.urandom(200_000)
    digest = hashlib.sha256(blob).hexdigest()
    with bench.client(security=site.security(Role.HOST)) as client:
        forger.is_at_work = True
        client.upload(digest, blob)
    assert device.store.complete[digest] == blob
    assert device.sessions == 2


def test_a_device_that_is_killed_and_comes_back_is_asked_who_it_is_again(
    site: Site, stranger: Site, bench: Bench
) -> None:
    bench.start(MemoryDevice(), site.security(Role.DEVICE))
    with bench.client(20, site.security(Role.HOST)) as client:
        for _ in range(2):
            bench.end(Order.KILL)
            bench.start(MemoryDevice(), site.security(Role.DEVICE))
            assert client.run(JobRequest(os.urandom(4).hex(), "echo", {}, b"abc"), timeout=30).payload == b"cba"
        bench.end(Order.KILL)
        bench.start(MemoryDevice(), stranger.security(Role.DEVICE))
        with pytest.raises(PeerError):
            client.run(JobRequest("other", "echo", {}, b"abc"), timeout=30)


@pytest.fixture
def environment(site: Site, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A device with TLS on the only port there is, and a host's certificates."""
    monkeypatch.setenv("EDGE_TLS", str(site.host))
    monkeypatch.setenv(PORTS_VARIABLE, bench.line.host_path)
    bench.start(MemoryDevice(), site.security(Role.DEVICE))
    return bench


def test_ports_are_named_the_same_everywhere(environment: Bench, tmp_path: Path) -> None:
    path = environment.line.host_path
    for port in ("tls://auto", f"tls://{path}", f"tls://press-7{path}"):
        with Client.open(port) as client:
            assert client.info.device_id == "memory"
    with JobQueue(tmp_path / "q.db") as queue, Fleet(queue, ["tls://auto"]) as fleet:
        until = time.monotonic() + 20
        while [each.device_id for each in fleet.status()] != ["memory"] and time.monotonic() < until:
            time.sleep(0.02)
        assert [(each.port, each.device_id) for each in fleet.status()] == [(f"tls://{path}", "memory")]
