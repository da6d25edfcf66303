"""Host client, real pty, real supervisor process, toy engine: what survives when either end is killed."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from boards import load_board
from edge.virtual import virtual_board
from firmware_bridge import limits
from firmware_bridge.chunks import MAX_CHUNK
from firmware_bridge.client import Client
from firmware_bridge.errors import BundleChanged, DeviceRefused, JobInputError
from firmware_bridge.jobs import Failure, JobRequest, Progress, Result
from firmware_bridge.link.pty import PtyPair
from firmware_bridge.testing.site import make_site
from firmware_bridge.wire.messages import FailureCode

from .conftest import ToyBundle, sha, toy_bundle

REPOSITORY = Path(__file__).parents[2]


class Device:
    """A supervisor process that may be killed and started again on the same line and folder."""

    def __init__(self, root: Path, port: str) -> None:
        self._environment = {name: value for name, value in os.environ.items() if name != "EDGE_TLS"}
        self._root = root
        self._port = port
        self.log = root.with_suffix(".log")
        self.starts = 0
        self.start()

    def start(self) -> None:
        words = [sys.executable, "-m", "edge.device", "--root", str(self._root), "--port", self._port]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*words, "--board", "host"], stdout=log, stderr=log, cwd=REPOSITORY, env=self._environment
            )
        self.starts += 1

    def kill(self, number: int = signal.SIGKILL) -> int:
        self._process.send_signal(number)
        return self._process.wait(20)

    def engine_pid(self) -> int:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        others = [
            int(pid)
            for task in Path(f"/proc/{self._process.pid}/task").iterdir()
            for pid in (task / "children").read_text().split()
        ]
        return [*map(int, children), *others][0]


@contextmanager
def device_on_a_line(root: Path, certificates: Path | None = None) -> Iterator[tuple[Device, str]]:
    """A supervisor and the port to it; with TLS where its certificates are given."""
    tls = "" if certificates is None else "tls://"
    if certificates is not None:
        shutil.copytree(certificates, root / "tls")
    with PtyPair() as line:
        device = Device(root, tls + line.device_path)
        try:
            yield device, tls + line.host_path
        finally:
            device.kill()


def deploy(client: Client, bundle: ToyBundle) -> None:
    for digest, data in bundle.blobs.items():
        client.upload(digest, data)
    client.activate(bundle.bundle_id)


def generate(job_id: str, seed: int = 1) -> JobRequest:
    return JobRequest(job_id, "generate", {"seed": seed})


def test_a_virtual_board_takes_a_bundle_and_jobs_and_leaves_nothing_behind(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path)
    stages: list[str] = []
    steps: list[Progress] = []
    with virtual_board(load_board("host"), tmp_path / "board") as board:
        with Client.open(board.port) as client:
            assert client.info.board == "host"
            for digest, data in bundle.blobs.items():
                client.upload(digest, data)
            client.activate(bundle.bundle_id, lambda stage, _done, _of: stages.append(stage))
            result = client.run(generate("a"), steps.append)
            with pytest.raises(JobInputError, match="1x4x4 uint8, 16 bytes"):
                client.run(JobRequest("b", "inspect", {"seed": 1, "start": 2, "dtype": "uint8"}, bytes(15)))
            with pytest.raises(DeviceRefused):
                client.activate("a" * 64)
            seen = client.run(JobRequest("c", "inspect", {"seed": 1, "start": 2, "dtype": "uint8"}, bytes(16)))
        assert "bundle" in board.log.read_text()
    assert list(dict.fromkeys(stages)) == ["verify", "start", "self-test"]
    assert [p.step for p in steps] == [1, 2, 3, 4, 5]
    assert len(result.payload) == 64
    assert seen.meta["score"] == 0.25
    with pytest.raises(ProcessLookupError):
        os.kill(board.pid, 0)
    assert "stopped" in board.log.read_text()
    with virtual_board(load_board("host"), tmp_path / "board") as board, Client.open(board.port) as client:
        assert client.info.active_bundle == bundle.bundle_id
        assert client.run(generate("d")).payload == result.payload


@pytest.mark.parametrize("is_secured", [False, True], ids=["plain", "tls"])
def test_the_supervisor_killed_in_mid_upload(is_secured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(4 * 2**20)
    digest = sha(data)
    site = make_site(tmp_path / "site")
    monkeypatch.setenv("EDGE_TLS", str(site.host))
    certificates = site.device if is_secured else None
    with device_on_a_line(tmp_path / "root", certificates) as (device, port), Client.open(port) as client:

        def progress(done: int, of: int) -> None:
            if device.starts == 1 and done > of // 2:
                device.kill()
                device.start()

        report = client.upload(digest, data, progress)
        assert device.starts == 2
        assert client.has([digest]) == {digest}
        # A kill costs what was in the window and a chunk; the client counts what waits behind the window as well.
        assert report.chunks <= len(data) + limits.WINDOW + (limits.BACKLOG + 1) * MAX_CHUNK
        stored = tmp_path / "root" / "blobs" / digest
        assert stored.read_bytes() == data


def test_the_engine_killed_in_mid_job(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path, steps=3000, slow=0.002)
    with device_on_a_line(tmp_path / "root") as (device, port), Client.open(port) as client:
        deploy(client, bundle)
        client.submit(generate("victim"))
        for event in client.events():
            if isinstance(event, Progress) and event.step == 3:
                os.kill(device.engine_pid(), signal.SIGKILL)
            if isinstance(event, Failure):
                break
        assert isinstance(event, Failure)
        assert event.code == FailureCode.ENGINE_DIED
        assert "SIGKILL" in event.message
        job = JobRequest("next", "inspect", {"seed": 1, "start": 2997, "dtype": "uint8"}, bytes(16))
        assert client.run(job).meta["steps"] == 3


def test_the_supervisor_killed_in_mid_job(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path, steps=300, slow=0.002)
    with device_on_a_line(tmp_path / "root") as (device, port), Client.open(port) as client:
        deploy(client, bundle)
        alone = client.run(generate("alone"))

        def progress(at: Progress) -> None:
            if at.step == 30 and device.starts == 1:
                device.kill()
                device.start()

        result = client.run(generate("a"), progress)
        assert device.starts == 2
        assert result.payload == alone.payload
        assert result.meta["restarts"] == 1


def test_the_first_job_of_a_bundle_takes_the_device_down_and_the_old_bundle_runs(tmp_path: Path) -> None:
    old, new = toy_bundle(tmp_path, "old", steps=4), toy_bundle(tmp_path, "new", steps=3000, slow=0.002)
    with device_on_a_line(tmp_path / "root") as (device, port), Client.open(port) as client:
        deploy(client, old)
        before = client.run(generate("good"))
        deploy(client, new)
        assert client.refresh().versions["bundle_state"] == "trial"

        def progress(at: Progress) -> None:
            if at.step == 30 and device.starts == 1:
                device.kill()
                device.start()

        with pytest.raises(BundleChanged, match="another bundle") as caught:
            client.run(generate("a"), progress)
        assert caught.value.code == FailureCode.BUNDLE_CHANGED
        assert client.info.active_bundle == old.bundle_id
        assert client.run(generate("after")).payload == before.payload


def test_a_confirmed_bundle_stays_though_its_job_takes_the_device_down(tmp_path: Path) -> None:
    old, new = toy_bundle(tmp_path, "old", steps=4), toy_bundle(tmp_path, "new", steps=200, slow=0.002)
    with device_on_a_line(tmp_path / "root") as (device, port), Client.open(port) as client:
        deploy(client, old)
        deploy(client, new)
        client.confirm(new.bundle_id)

        def progress(at: Progress) -> None:
            if at.step == 30 and device.starts == 1:
                device.kill()
                device.start()

        assert client.run(generate("a"), progress).meta["restarts"] == 1
        assert client.info.active_bundle == new.bundle_id


def test_two_jobs_over_the_line_interleave_and_one_is_cancelled(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path, steps=60, slow=0.002)
    with device_on_a_line(tmp_path / "root") as (_, port), Client.open(port) as client:
        deploy(client, bundle)
        alone = {name: client.run(generate(f"{name} alone".replace(" ", "-"), seed)).payload for name, seed in JOBS}
        for name, seed in JOBS:
            client.submit(generate(name, seed))
        client.submit(generate("unwanted", 9))
        client.cancel("unwanted")
        ends: dict[str, Result | Failure] = {}
        order: list[str] = []
        for event in client.events():
            if isinstance(event, Progress):
                order.append(event.job_id)
            else:
                ends[event.job_id] = event
        together = {name: ends[name] for name, _ in JOBS}
        assert {name: end.payload for name, end in together.items() if isinstance(end, Result)} == alone
        changes = sum(a != b for a, b in itertools.pairwise(order))
        assert changes > 20
        unwanted = ends["unwanted"]
        assert isinstance(unwanted, Failure)
        assert unwanted.code == FailureCode.CANCELLED


JOBS = (("a", 1), ("b", 2))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_end_the_supervisor_in_order(tmp_path: Path, number: int, status: int) -> None:
    with device_on_a_line(tmp_path / "root") as (device, _):
        deadline = time.monotonic() + 20
        while "open at" not in device.log.read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert device.kill(number) == status


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--port", "/dev/none", "--board", "host"], 8, "/dev/none: there is no such port"),
        (["--port", "/dev/none", "--board", "rpi6"], 3, "unknown board 'rpi6'"),
        (["--board", "host"], 2, "--port"),
        (["--port", "/dev/none", "--board", "host", "--root", "/proc/none"], 10, "the device's folder cannot be used"),
    ],
)
def test_a_supervisor_that_cannot_start_says_why(tmp_path: Path, options: list[str], status: int, words: str) -> None:
    words_of_command = [sys.executable, "-m", "edge.device", "--root", str(tmp_path / "root"), *options]
    done = subprocess.run(words_of_command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr
