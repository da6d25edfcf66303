"""The client when devices restart, lines break and peers misbehave."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from firmware_bridge import limits
from firmware_bridge.chunks import MAX_CHUNK
from firmware_bridge.client import Client
from firmware_bridge.errors import (
    DeviceRefused,
    LinkError,
    RemoteProtocolError,
)
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import Failure, JobRequest, Result
from firmware_bridge.link.serial import SerialLink, open_port
from firmware_bridge.testing.bench import Bench, Order
from firmware_bridge.testing.device import MemoryDevice, MemoryStore
from firmware_bridge.testing.faulty import BOOT_LOG, flip_bits
from firmware_bridge.wire import frame, messages
from firmware_bridge.wire.messages import FailureCode, RefusalCode

from .client_bench import blob, echo, start


@pytest.mark.parametrize("order", [Order.STOP, Order.KILL])
def test_an_upload_survives_a_restart_of_the_device(bench: Bench, order: Order) -> None:
    store = MemoryStore()
    start(bench, MemoryDevice(store))
    digest, data = blob(2_000_000)
    restarted = []

    def watch(done: int, _of: int) -> None:
        if done > 1_000_000 and not restarted:
            restarted.append(done)
            bench.end(order)
            start(bench, MemoryDevice(store, boot_id="boot-2"))

    with bench.client() as client:
        report = client.upload(digest, data, watch)
        assert client.info.boot_id == "boot-2"
    assert store.complete == {digest: data}
    assert store.appended == len(data)  # no byte was stored twice
    assert report.chunks <= len(data) + (limits.WINDOW + limits.BACKLOG + 1) * MAX_CHUNK


@pytest.mark.parametrize("order", [Order.STOP, Order.KILL])
def test_a_job_survives_a_restart_of_the_device(bench: Bench, order: Order) -> None:
    start(bench, MemoryDevice(between_steps=lambda _: time.sleep(0.002)))
    payload = os.urandom(30_000)
    with bench.client() as client:
        client.submit(echo("a", payload, steps=100))
        events = client.events()
        assert next(events).step == 1
        bench.end(order)
        reborn = start(bench, MemoryDevice(boot_id="boot-2"))
        last = list(events)[-1]
    assert last == Result("a", {"steps": 100, "score": 0.5}, payload[::-1])
    assert reborn.started == ["a"]


def test_a_job_that_the_reborn_device_refuses_has_failed(bench: Bench) -> None:
    start(bench, MemoryDevice(between_steps=lambda _: time.sleep(0.002)))
    with bench.client() as client:
        client.submit(echo("a", steps=1000))
        events = client.events()
        next(events)
        bench.end(Order.KILL)
        start(bench, MemoryDevice(slots=0))
        last = list(events)[-1]
        assert isinstance(last, Failure)
        assert last.code == FailureCode.LOST
        assert "slots are taken" in last.message
        assert list(client.events()) == []


ABANDON = """
import sys, time
from firmware_bridge.client import Client
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import JobRequest
client = Client.open(sys.argv[1])
client.submit(JobRequest("mine", "echo", {"steps": 50}, b"abc"))
print("submitted", flush=True)
time.sleep(60)
"""


def test_a_host_that_is_killed_and_comes_back_gets_its_job_once(bench: Bench) -> None:
    device = start(bench)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", ABANDON, bench.line.host_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b"submitted\n"
        process.kill()
    with bench.client() as client:
        assert client.run(echo("mine", b"abc", steps=50)).payload == b"cba"
        client.refresh()
    assert device.started == ["mine"]
    assert device.forgotten == ["mine"]
    assert device.sessions == 2


def test_nobody_answers(bench: Bench) -> None:
    begun = time.monotonic()
    with pytest.raises(LinkError, match="nobody answers") as caught:
        bench.client(connect_timeout=1.0)
    assert time.monotonic() - begun < 3.0
    assert caught.value.exit_code == 9
    start(bench)
    with bench.client():  # and the port was given back
        pass


def test_a_device_of_another_version_is_named(bench: Bench) -> None:
    def answer(stop: threading.Event) -> None:
        with open_port(bench.line.device_path) as link:
            while not stop.wait(0.05):
                if link.read():
                    link.write(frame.encode(b"\x09\x06"))

    stop = threading.Event()
    thread = threading.Thread(target=answer, args=(stop,))
    thread.start()
    with pytest.raises(RemoteProtocolError, match=r"another version.*speaks 9"):
        bench.client()
    stop.set()
    thread.join()


def test_a_line_that_is_cut_ends_the_wait(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    start(bench, MemoryDevice(between_steps=lambda _: time.sleep(0.01)))
    client = bench.client()
    client.submit(echo("a", steps=10**6))
    events = client.events()
    next(events)
    bench.line.close()
    begun = time.monotonic()
    with pytest.raises(LinkError, match=r"link is gone|closed the link"):
        list(events)
    with pytest.raises(LinkError):
        client.refresh()
    client.close()
    client.close()
    assert time.monotonic() - begun < 5.0


def test_a_closed_client_says_so(bench: Bench) -> None:
    start(bench)
    client = bench.client()
    client.close()
    with pytest.raises(LinkError, match="closed"):
        client.refresh()


def test_a_wait_has_an_end(bench: Bench) -> None:
    start(bench, MemoryDevice(between_steps=lambda _: time.sleep(0.8)))
    with bench.client() as client:
        client.submit(echo("slow", steps=100))
        with pytest.raises(LinkError, match="next step"):
            list(client.events(timeout=0.3))


def test_ctrl_c_gets_through_and_leaves_the_device_ready(bench: Bench) -> None:
    device = start(bench, MemoryDevice(between_steps=lambda _: time.sleep(0.05)))
    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), bench.client() as client:
        client.run(echo("endless", steps=10**6))
    assert time.monotonic() - begun < 4.0
    with bench.client() as client:
        assert client.run(echo("next", b"abc")).payload == b"cba"
    assert device._ended["endless"].code == FailureCode.CANCELLED


def test_a_bad_line_changes_nothing_but_the_time(make_bench: Callable[..., Bench]) -> None:
    chance = random.Random(4)

    def spoil(data: bytes) -> bytes:
        noise = BOOT_LOG if chance.random() < 0.02 else b""
        return noise + flip_bits(data, 2e-6, chance)

    bench = make_bench(to_device=spoil, to_host=spoil)
    device = start(bench)
    digest, data = blob(1_500_000)
    with bench.client() as client:
        assert client.upload(digest, data).chunks == len(data)
        for number in range(10):
            payload = os.urandom(20_000)
            assert client.run(echo(f"job-{number}", payload)).payload == payload[::-1]
        assert client.counters()["retransmitted"] > 0
        assert "Booting Linux" in client.console()
        assert client.console() == ""
    assert device.store.complete == {digest: data}
    assert len(device.started) == 10


def test_the_devices_log_comes_with_the_console(bench: Bench) -> None:
    device = start(bench)
    with bench.client() as client:
        device._outbox.log("engine: ready")
        client.refresh()
        assert "engine: ready\n" in client.console()


def test_two_threads_may_use_one_client(bench: Bench) -> None:
    start(bench)
    digest, data = blob(1_000_000)
    with bench.client() as client:
        thread = threading.Thread(target=client.upload, args=(digest, data))
        thread.start()
        for number in range(30):
            assert client.run(echo(f"job-{number}", b"abc")).payload == b"cba"
        thread.join()
        assert client.has([digest]) == {digest}


class FlakyDevice(MemoryDevice):
    """Ends, as if unplugged, when it is greeted."""

    def describe(self) -> DeviceInfo:
        raise LinkError("gone in the middle of a hello")


def test_a_device_that_dies_in_the_hello_is_greeted_again(bench: Bench) -> None:
    bench.start(FlakyDevice())

    def revive() -> None:
        bench.end(Order.RUN)  # waits for its end
        bench.start(MemoryDevice(boot_id="boot-2"))

    thread = threading.Thread(target=revive)
    thread.start()
    with bench.client() as client:
        assert client.info.boot_id == "boot-2"
    thread.join()


class GarbledDevice(MemoryDevice):
    """Sends, whenever it takes a job, what is no message, and says that it could not read one."""

    def submit(self, job: JobRequest) -> None:
        connection = self._outbox.connection
        connection.session.send(b"no message")
        connection.send(messages.Refused(0, RefusalCode.UNSUPPORTED, "what was that?"))
        super().submit(job)


def test_versions_that_understand_each_other_badly_are_an_error_not_a_hang(bench: Bench) -> None:
    start(bench, GarbledDevice())
    begun = time.monotonic()
    with bench.client() as client:
        with pytest.raises(DeviceRefused, match="what was that") as caught:
            client.submit(echo("a"))
        assert "same version" in str(caught.value)
        assert "cannot read" in client.console()
    assert time.monotonic() - begun < 5.0


class DyingLink(SerialLink):
    """A link with a bug."""

    is_healthy = True

    def read(self) -> bytes:
        if not self.is_healthy:
            raise ZeroDivisionError
        return super().read()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_our_own_ends_the_wait_too(bench: Bench) -> None:
    start(bench)
    port = open_port(bench.line.host_path)
    link = DyingLink(port._port, port.name, None)
    client = Client(link)
    link.is_healthy = False
    with pytest.raises(LinkError, match="has died"):
        client.refresh()
    client.close()
