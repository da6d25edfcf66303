import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from firmware_bridge import limits
from firmware_bridge.chunks import MAX_CHUNK
from firmware_bridge.client import Client, UploadReport
from firmware_bridge.errors import (
    DeviceRefused,
    JobFailed,
    JobInputError,
    LinkError,
    LocalProtocolError,
    RemoteProtocolError,
)
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import Failure, JobRequest, Preview, Progress, Result, new_job_id
from firmware_bridge.link.serial import SerialLink, open_port
from firmware_bridge.testing.bench import Bench, Order
from firmware_bridge.testing.device import MemoryDevice, MemoryStore
from firmware_bridge.testing.faulty import BOOT_LOG, flip_bits
from firmware_bridge.transfer import CAPABILITIES
from firmware_bridge.wire import frame, messages
from firmware_bridge.wire.messages import FailureCode, RefusalCode


def start(bench: Bench, device: MemoryDevice | None = None) -> MemoryDevice:
    device = device or MemoryDevice()
    bench.start(device)
    return device


def blob(size: int, seed: int = 1) -> tuple[str, bytes]:
    data = random.Random(seed).randbytes(size)
    return hashlib.sha256(data).hexdigest(), data


def echo(job_id: str, payload: bytes = b"", **params: object) -> JobRequest:
    return JobRequest(job_id, "echo", params, payload)


class PausedDevice(MemoryDevice):
    paused = True

    def advance(self, now: float) -> float | None:
        return now + 0.01 if self.paused else super().advance(now)


def test_the_device_says_who_it_is(bench: Bench) -> None:
    device = start(bench)
    with bench.client() as client:
        assert client.info == replace(device.describe(), capabilities=CAPABILITIES)
        device.active = "ab" * 32
        assert client.info.active_bundle is None
        assert client.refresh().active_bundle == "ab" * 32
        assert client.info.active_bundle == "ab" * 32


def test_a_blob_goes_over_once(bench: Bench, tmp_path: Path) -> None:
    device = start(bench)
    digest, data = blob(100_000)
    path = tmp_path / "blob"
    path.write_bytes(data)
    seen = []
    with bench.client() as client:
        assert client.has([digest, "00" * 32]) == set()
        report = client.upload(digest, path, lambda *at: seen.append(at))
        assert (report.size, report.chunks) == (100_000, 100_000)
        assert 100_000 < report.sent < 101_000  # the list of chunks is the rest
        assert client.has([digest, "00" * 32]) == {digest}
        assert client.upload(digest, data) == UploadReport(100_000, 0, 0)
    assert device.store.complete == {digest: data}
    assert device.store.appended == 100_000
    assert seen == sorted(seen)
    assert seen[-1] == (100_000, 100_000)
    assert len(seen) >= 100_000 // MAX_CHUNK


def test_text_is_compressed(bench: Bench) -> None:
    device = start(bench)
    data = b"what compresses well, " * 10_000
    digest = hashlib.sha256(data).hexdigest()
    with bench.client() as client:
        report = client.upload(digest, data)
    assert report.chunks <= len(data)  # it repeats itself
    assert report.sent < 0.1 * len(data)
    assert device.store.complete == {digest: data}


def test_many_digests_are_asked_about_in_parts(bench: Bench) -> None:
    device = start(bench)
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(600)]
    device.store.complete = dict.fromkeys(digests[::3], b"")
    with bench.client() as client:
        assert client.has(digests) == set(digests[::3])


def test_an_upload_goes_on_where_an_earlier_one_ended(bench: Bench) -> None:
    device = start(bench)
    digest, data = blob(50_000)
    device.store.staged[digest] = bytearray(data[:30_001])
    with bench.client() as client:
        report = client.upload(digest, data)
        assert 19_999 <= report.chunks <= 19_999 + MAX_CHUNK
        device.store.staged[digest] = bytearray(device.store.complete.pop(digest))
        assert client.upload(digest, data) == UploadReport(50_000, 0, 0)  # its list was kept as well
    assert device.store.complete == {digest: data}


def test_a_wrong_hash_is_refused_and_nothing_of_it_kept(bench: Bench) -> None:
    device = start(bench)
    digest, data = blob(20_000)
    with bench.client() as client:
        with pytest.raises(DeviceRefused, match="SHA-256") as caught:
            client.upload("11" * 32, data)
        assert caught.value.exit_code == 10
        assert caught.value.code == RefusalCode.HASH_MISMATCH
        assert device.store.staged == {}
        client.upload(digest, data)
    assert device.store.complete == {digest: data}


def test_a_full_device_refuses(bench: Bench) -> None:
    start(bench, MemoryDevice(MemoryStore(capacity=10_000)))
    digest, data = blob(20_000)
    with (
        bench.client() as client,
        pytest.raises(DeviceRefused, match="20068 bytes do not fit, 10000 are free") as caught,
    ):
        client.upload(digest, data)
    assert caught.value.code == RefusalCode.NO_SPACE
    assert "remove old bundles" in str(caught.value)


@pytest.mark.parametrize(("digest", "data"), [("zz", b"x"), ("AB" * 32, b"x"), ("ab" * 31, b"x"), ("ab" * 32, b"")])
def test_what_is_no_blob_is_not_sent(bench: Bench, digest: str, data: bytes) -> None:
    start(bench)
    with bench.client() as client, pytest.raises(LocalProtocolError):
        client.upload(digest, data)


def test_a_file_that_is_not_there_or_shrinks(bench: Bench, tmp_path: Path) -> None:
    start(bench)
    digest, data = blob(1_000_000)
    path = tmp_path / "blob"
    with bench.client() as client:
        with pytest.raises(LocalProtocolError, match="cannot be read"):
            client.upload(digest, path)
        path.write_bytes(data)
        with pytest.raises(LocalProtocolError, match="has changed"):
            client.upload(digest, path, lambda *_: os.truncate(path, 10_000))
        path.write_bytes(data)
        assert client.upload(digest, path).chunks < len(data)


def test_activation(bench: Bench) -> None:
    device = start(bench)
    good, bad = blob(1000), (hashlib.sha256(b"bad").hexdigest(), b"bad")
    stages = []
    with bench.client() as client:
        client.upload(*good)
        client.upload(*bad)
        client.activate(good[0], lambda *at: stages.append(at), release=b"signed")
        assert device.release == b"signed"
        client.confirm(good[0])
        assert device.confirmed == good[0]
        with pytest.raises(DeviceRefused, match="is not active"):
            client.confirm(bad[0])
        assert stages == [("self-test", 1, 1)]
        assert client.refresh().active_bundle == good[0]
        with pytest.raises(DeviceRefused, match="golden output") as caught:
            client.activate(bad[0])
        assert caught.value.code == RefusalCode.SELF_TEST
        with pytest.raises(DeviceRefused) as caught:
            client.activate("77" * 32)
        assert caught.value.code == RefusalCode.UNKNOWN_BUNDLE
    assert device.active == good[0]


def test_a_job_reports_each_step_and_its_result(bench: Bench) -> None:
    device = start(bench)
    payload = os.urandom(64_001)
    job = echo(new_job_id(), payload, steps=5)
    with bench.client() as client:
        client.submit(job)
        events = list(client.events())
        assert events[:-1] == [Progress(job.job_id, step, 5, passes=1) for step in range(1, 6)]
        assert events[-1] == Result(job.job_id, {"steps": 5, "score": 0.5}, payload[::-1])
        assert list(client.events()) == []
        client.refresh()
    assert device.forgotten == [job.job_id]


def test_a_job_that_is_watched_sends_previews(bench: Bench) -> None:
    start(bench)
    with bench.client() as client:
        client.submit(replace(echo("seen", steps=6), preview_every=3))
        previews = [event for event in client.events() if isinstance(event, Preview)]
        assert previews == [Preview("seen", step, 6, (1, 2, 2), bytes([step] * 4)) for step in (3, 6)]
        assert client.run(replace(echo("again"), preview_every=1)).job_id == "again"


def test_jobs_are_interleaved_and_keep_apart(bench: Bench) -> None:
    device = start(bench, PausedDevice())
    jobs = [echo(f"job-{number}", bytes([number]) * (9000 * number), steps=20) for number in range(4)]
    with bench.client() as client:
        for job in jobs:
            client.submit(job)
        with pytest.raises(LocalProtocolError):
            client.submit(jobs[0])
        device.paused = False
        events = list(client.events())
    results = {event.job_id: event.payload for event in events if isinstance(event, Result)}
    assert results == {job.job_id: job.payload[::-1] for job in jobs}
    for job in jobs:
        steps = [event.step for event in events if isinstance(event, Progress) and event.job_id == job.job_id]
        assert steps == list(range(1, 21))
    last_first_step = max(events.index(Progress(job.job_id, 1, 20, passes=1)) for job in jobs)
    assert last_first_step < min(index for index, event in enumerate(events) if isinstance(event, Result))


def test_a_large_payload_goes_both_ways(bench: Bench) -> None:
    start(bench)
    payload = os.urandom(3_000_000)
    with bench.client() as client:
        assert client.run(echo("large", payload)).payload == payload[::-1]


def test_what_a_device_does_not_take(bench: Bench) -> None:
    device = start(bench, MemoryDevice(slots=1))
    with bench.client() as client:
        with pytest.raises(DeviceRefused) as refused:
            client.submit(JobRequest("a", "dance"))
        assert refused.value.code == RefusalCode.UNSUPPORTED
        with pytest.raises(JobInputError, match="steps is a number") as wrong:
            client.submit(echo("b", steps="many"))
        assert wrong.value.exit_code == 12
        client.submit(echo("c", steps=10**6))
        with pytest.raises(DeviceRefused) as busy:
            client.submit(echo("d"))
        assert busy.value.code == RefusalCode.BUSY
        client.cancel("c")
        assert next(event for event in client.events() if isinstance(event, Failure)).code == FailureCode.CANCELLED
        assert client.run(echo("d", b"abc")).payload == b"cba"  # it takes the next job
    assert device.started == ["c", "d"]


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        (FailureCode.ENGINE_DIED, JobFailed, 11),
        (FailureCode.OUT_OF_MEMORY, JobFailed, 11),
        (FailureCode.BAD_INPUT, JobInputError, 12),
        (4711, JobFailed, 11),
    ],
)
def test_a_failed_job_is_an_error_and_the_next_one_runs(
    bench: Bench, code: int, kind: type[JobFailed], exit_code: int
) -> None:
    start(bench)
    with bench.client() as client:
        with pytest.raises(kind, match="as asked") as caught:
            client.run(echo("a", fail=int(code)))
        assert (caught.value.code, caught.value.exit_code) == (code, exit_code)
        assert client.run(echo("b", b"abc")).payload == b"cba"


def test_cancelling_what_is_not_there_is_fine(bench: Bench) -> None:
    start(bench)
    with bench.client() as client:
        client.cancel("nothing")
        client.run(echo("a"))
        client.cancel("a")
        assert client.run(echo("b", b"abc")).payload == b"cba"


def test_leaving_cancels_what_has_not_ended(bench: Bench) -> None:
    device = start(bench)
    with bench.client() as client:
        client.submit(echo("endless", steps=10**9))
        next(client.events())
    deadline = time.monotonic() + 5.0
    while device._running or device.connected:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert device._ended["endless"].code == FailureCode.CANCELLED


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


def test_twelve_megabytes_pass_in_well_under_thirty_seconds(bench: Bench) -> None:
    start(bench)
    digest, data = blob(12_000_000)
    with bench.client() as client:
        begun = time.monotonic()
        client.upload(digest, data)
        seconds = time.monotonic() - begun
    assert seconds < 15.0  # 0.7 s on the two cores it was written on


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
