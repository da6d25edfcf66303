import os
import socket
import threading
from pathlib import Path

import pytest

from firmware_bridge import limits
from firmware_bridge.client import Client
from firmware_bridge.errors import LinkError, PortError
from firmware_bridge.link.discover import PORTS_VARIABLE
from firmware_bridge.link.pty import PtyPair, open_raw
from firmware_bridge.link.serial import _line_rate, open_port
from firmware_bridge.testing.device import MemoryDevice


def test_bytes_pass_unchanged_both_ways() -> None:
    every = bytes(range(256)) * 4
    with PtyPair() as pair, open_port(pair.host_path) as host, open_port(pair.device_path, 115_200) as device:
        assert host.bytes_per_second is None
        assert host.name == pair.host_path
        assert host.read() == b""
        for source, target in ((host, device), (device, host)):
            assert source.write(every) == len(every)
            got = b""
            while len(got) < len(every):
                got += target.read()
            assert got == every


def test_a_full_port_takes_less_and_does_not_wait() -> None:
    master, slave, path = open_raw()
    with open_port(path) as link:
        total, sent = 0, -1
        while sent:
            sent = link.write(bytes(8192))
            total += sent
        assert 4096 <= total < 10 * limits.READ_SIZE
        assert len(os.read(master, 100)) == 100
    os.close(master)
    os.close(slave)


def test_a_port_that_is_taken() -> None:
    with PtyPair() as pair, open_port(pair.host_path):
        with pytest.raises(PortError, match="taken by another program") as caught:
            open_port(pair.host_path)
        assert caught.value.exit_code == 8
        assert pair.host_path in str(caught.value)
        assert "ModemManager" in caught.value.mend


def test_a_port_is_free_again_after_closing() -> None:
    with PtyPair() as pair:
        link = open_port(pair.host_path)
        link.close()
        link.close()
        open_port(pair.host_path).close()


def test_a_port_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PortError, match="no such port"):
        open_port(str(tmp_path / "ttyUSB9"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_port_that_is_not_permitted(tmp_path: Path) -> None:
    path = tmp_path / "port"
    path.touch(0o000)
    with pytest.raises(PortError, match="dialout"):
        open_port(str(path))


def test_the_error_of_a_port_that_is_not_permitted() -> None:
    from firmware_bridge.link.serial import _port_error

    error = _port_error("/dev/ttyUSB0", 9600, PermissionError(13, "Permission denied"))
    assert "dialout" in str(error)


def test_a_file_is_no_port(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    with pytest.raises(PortError, match="no serial port"):
        open_port(str(path))
    with pytest.raises(PortError):
        open_port(str(tmp_path))


def test_a_baud_rate_that_cannot_be() -> None:
    with PtyPair() as pair, pytest.raises(PortError, match="baud"):
        open_port(pair.host_path, -5)


@pytest.mark.parametrize("port", ["loop://", "rfc2217://host:1", "spy:///dev/ttyS0"])
def test_other_urls_are_refused(port: str) -> None:
    with pytest.raises(PortError, match="socket://HOST:PORT"):
        open_port(port)


@pytest.mark.parametrize("port", ["socket://127.0.0.1:1", "socket://nowhere", "socket://nowhere.invalid:80"])
def test_a_socket_where_nobody_listens(port: str) -> None:
    with pytest.raises(PortError):
        open_port(port)


def test_a_hang_up_is_an_error_not_silence() -> None:
    pair = PtyPair()
    link = open_port(pair.host_path)
    pair.close()
    with pytest.raises(LinkError, match=r"gone|closed"):
        link.read()
    with pytest.raises(LinkError, match=r"gone|closed"):
        link.write(b"x")
    link.close()


def test_only_uarts_have_a_line_rate() -> None:
    assert _line_rate("/dev/ttyUSB0", 115_200) == 11_520.0
    assert _line_rate("/dev/ttyAMA0", 3_000_000) == 300_000.0
    assert _line_rate("/dev/ttyACM0", 115_200) is None
    assert _line_rate("/dev/pts/3", 115_200) is None
    assert _line_rate("socket://ttyUSB0:1", 115_200) is None


def test_a_client_talks_over_a_socket() -> None:
    from firmware_bridge.serve import serve

    class Accepted:
        """The device's end of a TCP connection: the same interface as a serial link."""

        name, bytes_per_second = "tcp", None

        def __init__(self, connection: socket.socket) -> None:
            connection.setblocking(False)
            self._connection = connection

        def fileno(self) -> int:
            return self._connection.fileno()

        def read(self) -> bytes:
            try:
                data = self._connection.recv(limits.READ_SIZE)
            except BlockingIOError:
                return b""
            if not data:
                raise LinkError("closed")
            return data

        def write(self, data: bytes | memoryview) -> int:
            try:
                return self._connection.send(data)
            except BlockingIOError:
                return 0

    listener = socket.create_server(("127.0.0.1", 0))
    ended = []

    def device() -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                serve(Accepted(connection), MemoryDevice())
            except LinkError as error:
                ended.append(error)

    thread = threading.Thread(target=device)
    thread.start()
    with Client.open(f"socket://127.0.0.1:{listener.getsockname()[1]}") as client:
        assert client.info.board == "memory"
    thread.join(10.0)
    listener.close()
    assert len(ended) == 1  # the host hung up


def test_auto_with_real_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    with PtyPair() as one, PtyPair() as two:
        monkeypatch.setenv(PORTS_VARIABLE, one.host_path)
        with open_port("auto") as link:
            assert link.name == one.host_path
        monkeypatch.setenv(PORTS_VARIABLE, f"{one.host_path}:{two.host_path}")
        with pytest.raises(PortError, match="2 serial ports") as several:
            open_port("auto")
        assert one.host_path in str(several.value)
        assert two.host_path in str(several.value)
        monkeypatch.setenv(PORTS_VARIABLE, "")
        with pytest.raises(PortError, match="no serial port") as none:
            open_port("auto")
        assert none.value.exit_code == several.value.exit_code == 8
