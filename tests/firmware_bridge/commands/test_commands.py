"""The shell commands as a user runs them, against devices in memory on real ptys."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image

from firmware_bridge.commands.doctor import meddlers
from firmware_bridge.commands.payload import parse_params, read_payload, write_outcome
from firmware_bridge.errors import BridgeError
from firmware_bridge.queue.queue import JobQueue
from firmware_bridge.queue.records import NewJob, Outcome, State
from firmware_bridge.testing.bench import Bench
from firmware_bridge.testing.device import MemoryDevice
from firmware_bridge.testing.site import make_site
from firmware_bridge.wire.states import Role


@pytest.fixture
def board() -> Iterator[tuple[Bench, MemoryDevice]]:
    bench = Bench()
    device = MemoryDevice(between_steps=lambda _: time.sleep(0.01))
    bench.start(device)
    yield bench, device
    bench.close()


def bridge(
    *words: str,
    ports: str = "",
    queue: Path | None = None,
    timeout: float = 60,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EDGE_PORTS": ports, "COLUMNS": "200", **(environment or {})}
    if queue is not None:
        environment["EDGE_QUEUE"] = str(queue)
    command = [sys.executable, "-m", "firmware_bridge", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


def test_devices_lists_who_answers_and_who_does_not(board: tuple[Bench, MemoryDevice]) -> None:
    with Bench() as silent:
        ports = f"{board[0].line.host_path}:{silent.line.host_path}"
        told = json.loads(bridge("devices", "--json", "--timeout", "1", ports=ports).stdout)
    by_port = {each["port"]: each for each in told}
    assert by_port[board[0].line.host_path]["device_id"] == "memory"
    assert "nobody answers" in by_port[silent.line.host_path]["error"]
    assert "supervisor" in by_port[silent.line.host_path]["mend"]


def test_devices_asks_with_tls_where_it_should(board: tuple[Bench, MemoryDevice], tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    with Bench() as secured:
        secured.start(MemoryDevice(), site.security(Role.DEVICE))
        paths = [board[0].line.host_path, secured.line.host_path]
        environment = {"EDGE_TLS": str(site.host)}
        asked = bridge("devices", "--json", "--port", "tls://auto", ports=":".join(paths), environment=environment)
        plain = bridge("hello", "--port", paths[1])
    told = {each["port"]: each for each in json.loads(asked.stdout)}
    assert "without TLS" in told[f"tls://{paths[0]}"]["error"]
    assert told[f"tls://{paths[1]}"]["device_id"] == "memory"
    assert (asked.returncode, plain.returncode) == (0, 10)
    assert "write tls:// before the port" in plain.stderr


def test_a_device_that_watch_serves_is_listed_with_the_process_that_has_it(
    board: tuple[Bench, MemoryDevice], tmp_path: Path
) -> None:
    board[1].active = "ab" * 32
    path, queue = board[0].line.host_path, tmp_path / "q.db"
    environment = {**os.environ, "EDGE_PORTS": path, "EDGE_QUEUE": str(queue)}
    command = [sys.executable, "-m", "firmware_bridge", "watch", "--json"]
    watching = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    try:
        while json.loads(watching.stdout.readline()).get("device") != "memory":
            continue
        (told,) = json.loads(bridge("devices", "--json", ports=path, queue=queue).stdout)
        listed = bridge("devices", ports=path, queue=queue)
        elsewhere = bridge("devices", ports=path, queue=tmp_path / "other.db")
        looked = bridge("doctor", "--json", ports=path, queue=queue)
    finally:
        watching.kill()
        watching.wait()
    (holder,) = told["held_by"]
    assert (told["device_id"], told["board"], told["active_bundle"]) == ("memory", "memory", "ab" * 32)
    assert holder["pid"] == watching.pid
    assert "firmware_bridge watch" in holder["command"]
    assert f"served by process {watching.pid}" in listed.stderr
    assert (listed.returncode, elsewhere.returncode) == (0, 8)
    assert f"taken by another program: process {watching.pid}" in elsewhere.stderr
    assert "is served by" in json.loads(looked.stdout)[1]["detail"]
    assert not (tmp_path / "other.db").exists()


def test_send_runs_jobs_and_writes_their_results(board: tuple[Bench, MemoryDevice], tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.bin").write_bytes(name.encode())
    done = bridge(
        *("send", "echo", str(tmp_path / "one.bin"), str(tmp_path / "two.bin"), "--param", "steps=2", "--json"),
        *("--out", str(tmp_path / "out")),
        ports=board[0].line.host_path,
        queue=tmp_path / "q.db",
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["label"]: line["state"] for line in lines} == {"one": "done", "two": "done"}
    results = {path.name.partition("-")[0]: path.read_bytes() for path in (tmp_path / "out").glob("*.f32")}
    assert results == {"one": b"eno", "two": b"owt"}
    assert len(board[1].forgotten) == 2
    with JobQueue(tmp_path / "q.db") as queue:
        assert queue.jobs() == []


def test_a_job_that_fails_says_why_and_the_exit_code_tells(board: tuple[Bench, MemoryDevice], tmp_path: Path) -> None:
    options = ("--param", "fail=3", "--out", str(tmp_path / "out"), "--seed", "1")
    done = bridge("send", "echo", *options, ports=board[0].line.host_path, queue=tmp_path / "q.db")
    assert done.returncode == 11, done.stderr
    assert "as asked" in done.stderr
    (about,) = (tmp_path / "out").glob("*.json")
    assert json.loads(about.read_text())["code"] == 3


def test_queued_now_and_served_later(board: tuple[Bench, MemoryDevice], tmp_path: Path) -> None:
    queue = tmp_path / "q.db"
    queued = bridge("send", "echo", "--seed", "1", "--seed", "2", "--no-wait", "--json", queue=queue)
    ids = [json.loads(line)["job_id"] for line in queued.stdout.splitlines()]
    assert len(ids) == 2
    assert json.loads(bridge("jobs", "cancel", ids[1], "--json", queue=queue).stdout) == {ids[1]: "cancelled"}
    served = bridge("watch", "--until-empty", "--json", ports=board[0].line.host_path, queue=queue)
    events = [json.loads(line) for line in served.stdout.splitlines()]
    assert [event["job_id"] for event in events if event["event"] == "result"] == [ids[0]]
    listed = json.loads(bridge("jobs", "list", "--json", queue=queue).stdout)
    assert listed["counts"]["done"] == listed["counts"]["cancelled"] == 1
    written = bridge("jobs", "results", "--out", str(tmp_path / "out"), queue=queue)
    assert written.returncode == 0, written.stderr
    assert len(list((tmp_path / "out").glob("*.json"))) == 2
    assert json.loads(bridge("jobs", "list", "--json", queue=queue).stdout)["jobs"] == []
    assert bridge("jobs", "results", ids[0], queue=queue).returncode == 13


def test_a_job_that_no_device_may_take_is_told_everywhere(tmp_path: Path) -> None:
    queue = tmp_path / "q.db"
    bridge("send", "echo", "--seed", "1", "--device", "elsewhere", "--no-wait", queue=queue)
    said = "1 job waits for device elsewhere, which is not here"
    assert said in bridge("jobs", "list", queue=queue).stderr
    assert json.loads(bridge("jobs", "list", "--json", queue=queue).stdout)["stuck"][0]["device"] == "elsewhere"
    assert said in bridge("doctor", queue=queue).stderr


def test_a_bundle_is_named_by_the_beginning_of_its_id(board: tuple[Bench, MemoryDevice], tmp_path: Path) -> None:
    board[1].active = "ab" * 32
    words = ("send", "echo", "--seed", "1", "--out", str(tmp_path / "out"))
    for bundle, code in (("abab", 2), ("ab" * 32, 0), ("abab", 0), ("cd", 2)):  # first, no device was seen yet
        done = bridge(*words, "--bundle", bundle, ports=board[0].line.host_path, queue=tmp_path / "q.db")
        assert done.returncode == code, done.stderr


def test_failures_that_are_all_the_inputs_have_an_exit_code_of_their_own(
    board: tuple[Bench, MemoryDevice], tmp_path: Path
) -> None:
    options = ("--param", "steps=many", "--out", str(tmp_path / "out"), "--seed", "1")
    done = bridge("send", "echo", *options, ports=board[0].line.host_path, queue=tmp_path / "q.db")
    assert done.returncode == 12, done.stderr


def test_where_nobody_answers_devices_says_why_and_fails(tmp_path: Path) -> None:
    done = bridge("devices", "--port", str(tmp_path / "nothing"))
    assert done.returncode == 8
    assert "there is no such port" in done.stderr
    assert "plug the device in" in done.stderr


def test_watch_keeps_a_picture_of_each_running_job(board: tuple[Bench, MemoryDevice], tmp_path: Path) -> None:
    queue, pictures = tmp_path / "q.db", tmp_path / "pictures"
    queued = bridge("send", "echo", "--seed", "1", "--param", "steps=9", "--no-wait", "--json", queue=queue)
    job_id = json.loads(queued.stdout)["job_id"]
    words = ("watch", "--until-empty", "--json", "--preview", str(pictures), "--preview-every", "4")
    served = bridge(*words, ports=board[0].line.host_path, queue=queue)
    events = [json.loads(line) for line in served.stdout.splitlines()]
    assert [event["step"] for event in events if event["event"] == "preview"] == [4, 8]
    (picture,) = pictures.iterdir()
    assert picture.name == f"{job_id}.png"
    with Image.open(picture) as image:
        assert (image.size, image.getpixel((0, 0))) == ((2, 2), 8)


def test_ctrl_c_leaves_the_jobs_in_the_queue_and_they_run_once(
    board: tuple[Bench, MemoryDevice], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "firmware_bridge", "send", "echo", "--seed", "1", "--param", "steps=100"]
    environment = {**os.environ, "EDGE_PORTS": board[0].line.host_path, "EDGE_QUEUE": str(tmp_path / "q.db")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    until = time.monotonic() + 30
    while not board[1].started and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130, told
    assert "`watch` goes on with them" in told
    assert "Traceback" not in told
    served = bridge("watch", "--until-empty", "--json", ports=board[0].line.host_path, queue=tmp_path / "q.db")
    assert '"event": "result"' in served.stdout
    assert len(board[1].started) == 1


def test_doctor_names_what_is_wrong_and_how_to_mend_it(board: tuple[Bench, MemoryDevice], tmp_path: Path) -> None:
    done = bridge("doctor", "--json", ports=board[0].line.host_path, queue=tmp_path / "q.db")
    assert done.returncode == 1
    problems = {each["detail"]: each["mend"] for each in json.loads(done.stdout) if not each["is_well"]}
    assert problems["the device has no active bundle"] == "python -m edge.deploy --board memory"
    nothing = bridge("doctor", queue=tmp_path / "q.db")
    assert "no serial port" in nothing.stderr
    assert "mend" in nothing.stderr


def test_doctor_knows_programs_that_meddle(tmp_path: Path) -> None:
    for number, name in enumerate(("bash", "ModemManager")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "comm").write_text(name + "\n")
    (finding,) = meddlers(tmp_path)
    assert not finding.is_well
    assert "systemctl mask" in finding.mend


def test_console_shows_what_is_on_the_line_beside_the_protocol() -> None:
    device = MemoryDevice()
    with Bench(to_host=lambda data: b"kernel: \x1b[31mhot\x1b[0m\n" + data) as bench:
        bench.start(device)
        told = bridge("console", "--port", bench.line.host_path, "--seconds", "0.5")
    assert "kernel: hot" in told.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["send", "echo"], 2, "--seed"),
        (["send", "echo", "--seed", "1", "--param", "novalue"], 2, "NAME=VALUE"),
        (["send", "inspect", "no-such-file.png"], 12, "no-such-file.png"),
        (["jobs", "cancel", "nothing"], 13, "no such job"),
        (["watch", "--preview", "/proc/no"], 2, "name a folder"),
        (["hello", "--port", "/dev/no-such-port"], 8, "no such port"),
    ],
)
def test_refusals(words: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = bridge(*words, queue=tmp_path / "q.db")
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_parameters_have_types() -> None:
    words = ["a=1", "b=-2.5", "c=true", "d=text=with=equals", "e=1e3"]
    assert parse_params(words) == {"a": 1, "b": -2.5, "c": True, "d": "text=with=equals", "e": 1000.0}


def test_pictures_become_planes(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "colour.png")
    Image.new("L", (3, 2), 9).save(tmp_path / "grey.png")
    assert read_payload(tmp_path / "colour.png") == (bytes([1] * 6 + [2] * 6 + [3] * 6), {"dtype": "uint8"})
    assert read_payload(tmp_path / "grey.png")[0] == bytes([9] * 6)
    (tmp_path / "no.png").write_bytes(b"text")
    with pytest.raises(BridgeError, match=r"no\.png"):
        read_payload(tmp_path / "no.png")


def test_results_become_pictures(tmp_path: Path) -> None:
    job = NewJob("generate", label="part 7/a")
    payload = struct.pack("<6f", -1, 0, 1, 2, -2, 0.5)
    outcome = Outcome(job.job_id, job.label, State.DONE, None, "", {"shape": [1, 2, 3]}, payload)
    written = write_outcome(outcome, tmp_path)
    assert [path.suffix for path in written] == [".f32", ".png", ".json"]
    assert all(path.name.startswith("part_7_a-") for path in written)
    with Image.open(written[1]) as picture:
        assert list(picture.getdata()) == [0, 128, 255, 255, 0, 191]
