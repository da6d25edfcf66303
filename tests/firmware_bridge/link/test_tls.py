import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firmware_bridge.client import Client
from firmware_bridge.errors import LinkError, PeerError, PortError
from firmware_bridge.jobs import JobRequest
from firmware_bridge.link.certificates import CertificateFault, default_folder, make_authority, make_device
from firmware_bridge.link.serial import open_port
from firmware_bridge.link.tls import Listener, connect
from firmware_bridge.link.wait import wait_for
from firmware_bridge.serve import serve
from firmware_bridge.testing.device import MemoryDevice
from firmware_bridge.testing.site import make_site


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A host's and a device's."""
    site = make_site(tmp_path_factory.mktemp("site"))
    return site.host, site.device


class Door:
    """A device behind a listener, in a thread."""

    def __init__(self, folder: Path) -> None:
        self.device = MemoryDevice()
        self.refused: list[str] = []
        self._is_over = False
        self._listener = Listener("tls-listen://127.0.0.1:0", folder)
        self.port = self._listener.port
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_over = True
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while not self._is_over:
            try:
                link = self._listener.accept(0.05)
                if link is not None:
                    with link:
                        serve(link, self.device, stop=lambda: self._is_over)
            except LinkError as error:
                self.refused.append(str(error))


@pytest.fixture
def door(folders: tuple[Path, Path]) -> Iterator[Door]:
    door = Door(folders[1])
    yield door
    door.close()


def test_jobs_run_over_an_authenticated_link(
    door: Door, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_TLS", str(folders[0]))
    with Client.open(f"tls://127.0.0.1:{door.port}", connect_timeout=10) as client:
        payload = bytes(range(256)) * 2000
        assert client.run(JobRequest("a", "echo", {}, payload)).payload == payload[::-1]
    with Client.open(f"tls://localhost:{door.port}", connect_timeout=10) as client:
        assert client.info.device_id == "memory"


def test_a_host_of_another_site_is_sent_away(door: Door, tmp_path: Path) -> None:
    stranger = make_site(tmp_path).host
    with pytest.raises(PeerError, match="not who it should be") as caught:
        connect(f"tls://127.0.0.1:{door.port}", stranger)
    assert caught.value.exit_code == 8
    assert door.device.sessions == 0


def test_a_host_without_a_certificate_is_sent_away(door: Door, folders: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(cafile=folders[0] / "ca.pem")
    with (
        socket.create_connection(("127.0.0.1", door.port), 5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as link,
        pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
    ):
        link.recv(1)  # of TLS 1.3 a client learns only then what the server thought of it
    wait_until(lambda: len(door.refused) == 1)
    assert door.device.sessions == 0


def test_a_device_under_another_name_is_not_believed(tmp_path: Path) -> None:
    site = make_site(tmp_path, "elsewhere", ("10.9.8.7",))
    door = Door(site.device)
    try:
        with pytest.raises(PortError, match=r"127\.0\.0\.1"):
            connect(f"tls://127.0.0.1:{door.port}", site.host)
    finally:
        door.close()


def test_a_hosts_certificate_is_no_devices(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for source, target in (("ca.pem", "ca.pem"), ("host.pem", "device.pem"), ("host.key", "device.key")):
        (tmp_path / target).write_bytes((folders[0] / source).read_bytes())
    door = Door(tmp_path)
    try:
        with pytest.raises(PortError, match="purpose"):
            connect(f"tls://127.0.0.1:{door.port}", folders[0])
    finally:
        door.close()


def test_an_edited_byte_ends_the_link_and_reaches_nobody(door: Door, folders: tuple[Path, Path]) -> None:
    with editing_proxy(door.port) as (port, edit):
        link = connect(f"tls://127.0.0.1:{port}", folders[0])
        client = Client(link, connect_timeout=5)
        edit.set()
        with pytest.raises(LinkError):
            client.run(JobRequest("a", "echo", {}, bytes(50_000)), timeout=10)
        client.close()
    assert door.device.started == []


def test_plain_sockets_stay_on_this_machine() -> None:
    with pytest.raises(PortError, match="plain socket to another machine"):
        open_port("socket://192.0.2.1:7000")
    with pytest.raises(PortError, match="cannot connect"):
        open_port("socket://127.0.0.1:1")
    with pytest.raises(PortError, match="only paths"):
        open_port("ftp://127.0.0.1:1")


@pytest.mark.parametrize(
    "url", ["tls://", "tls://host", "tls://host:0x1", "tls://host:99999", "tls://host:1/path", "tls://host/"]
)
def test_what_is_no_address_is_said(url: str, folders: tuple[Path, Path]) -> None:
    with pytest.raises(PortError, match="no address"):
        connect(url, folders[0])


def test_nobody_there_and_no_certificates(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(PortError, match="cannot connect"):
        connect("tls://127.0.0.1:1", folders[0])
    with pytest.raises(PortError, match="no certificates"):
        connect("tls://127.0.0.1:1", tmp_path)
    with pytest.raises(PortError, match="no certificates"):
        Listener("tls-listen://127.0.0.1:0", tmp_path)


def test_an_address_that_is_taken(door: Door, folders: tuple[Path, Path]) -> None:
    with pytest.raises(PortError, match="cannot listen"):
        Listener(f"tls-listen://127.0.0.1:{door.port}", folders[1])


def test_keys_are_their_owners_alone_and_certificates_are_made_once(tmp_path: Path) -> None:
    make_authority(tmp_path)
    authority = (tmp_path / "ca.pem").read_bytes()
    make_authority(tmp_path)
    assert (tmp_path / "ca.pem").read_bytes() == authority
    make_device(tmp_path, "one", [])
    assert {(tmp_path / f"{name}.key").stat().st_mode & 0o777 for name in ("ca", "host", "one")} == {0o600}
    with pytest.raises(CertificateFault, match="there is one"):
        make_device(tmp_path, "one", [])
    with pytest.raises(CertificateFault, match="no name"):
        make_device(tmp_path, "../one", [])
    with pytest.raises(CertificateFault, match="no authority"):
        make_device(tmp_path / "other", "one", [])


def test_the_folder_is_the_environments_or_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGE_TLS", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("EDGE_TLS")
    assert default_folder().name == "tls"


@contextlib.contextmanager
def editing_proxy(port: int) -> Iterator[tuple[int, threading.Event]]:
    """A machine in the middle, that flips a bit of all it passes on once it is told to."""
    edit, over = threading.Event(), threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        near, _ = server.accept()
        far = socket.create_connection(("127.0.0.1", port))
        with near, far:
            while not over.is_set():
                readable, _ = wait_for([near.fileno(), far.fileno()], [], 0.05)
                for source, target in ((near, far), (far, near)):
                    if source.fileno() not in readable:
                        continue
                    try:
                        data = bytearray(source.recv(4096))
                        if data and edit.is_set():
                            data[len(data) // 2] ^= 1
                        target.sendall(data)
                    except OSError:  # one of the two has hung up
                        return
                    if not data:
                        return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1], edit
    finally:
        over.set()
        thread.join()
        server.close()


def wait_until(done: Callable[[], bool]) -> None:
    for _ in range(500):
        if done():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen within 5 s")
