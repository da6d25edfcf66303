"""``python -m edge.deploy`` on emulated boards, and what ends it early: a taken port, Ctrl-C at any stage."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from firmware_bridge.link.pty import PtyPair
from firmware_bridge.link.serial import open_port

TIMEOUT = 280
DEAD_SECONDS = 15


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, with_engines: Callable[[Path], Path]) -> Path:
    return with_engines(tmp_path_factory.mktemp("cache"))


def command(*arguments: str, cache: Path) -> tuple[list[str], dict[str, str]]:
    words = [sys.executable, "-m", "edge.deploy", *arguments]
    return words, {
        **os.environ,
        "EDGE_CACHE": str(cache),
        "EDGE_KEYS": str(cache / "keys"),
        "EDGE_PORTS": "",
        "OMP_WAIT_POLICY": "passive",
    }


def processes_naming(path: Path) -> list[str]:
    """Command lines of running processes that name ``path``: the supervisor and the engine do."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(path) in words:
            found.append(words)
    return found


@pytest.mark.parametrize(("board", "core"), [("rpi5", "cortex-a76"), ("rpi4", "cortex-a72")])
def test_an_emulated_board_agrees_with_the_oracle(board: str, core: str, cache: Path, tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((64, 64)).save(tmp_path / "part.png")
    options = ["--board", board, "--steps", "6", "--inspect-from", "0.5", "--generate", "3", "--json"]
    options += ["--image", str(tmp_path / "part.png"), "--out", str(tmp_path / "out")]
    words, environment = command(*options, cache=cache)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr
    assert f"virtual {board}" in done.stderr
    assert core in done.stderr
    report = json.loads(done.stdout)
    assert report["board"] == board
    assert [job["steps"] for job in report["jobs"]] == [6, 3]
    for job in report["jobs"]:
        assert job["bit_equal"] is True
        assert job["psnr_oracle_db"] is None or job["psnr_oracle_db"] >= 40
        assert job["psnr_static_int8_db"] < job["psnr_fp32_db"]
    assert report["jobs"][0]["psnr_fewer_steps_db"] < report["jobs"][0]["psnr_fp32_db"]
    assert processes_naming(cache) == []


def test_a_taken_port_is_refused_before_the_long_work(tmp_path: Path) -> None:
    with PtyPair() as pair, open_port(pair.host_path):
        words, environment = command("--board", "host", "--port", pair.host_path, cache=tmp_path / "cache")
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 8, done.stderr
    assert "taken by another program" in done.stderr
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("stage", ["calibrate", "lower the model", "activate"])
def test_ctrl_c_ends_at_any_stage_and_the_next_run_works(
    stage: str, cache: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    """Interrupts once the named line is on stderr: the stage after it is under way, or about to be."""
    own = tmp_path / "cache" if stage == "calibrate" else cache
    options = ["--board", "host", "--virtual", "--model", str(tiny_model_folder), "--steps", "40"]
    options += [word for seed in range(30) for word in ("--generate", str(seed))]
    words, environment = command(*options, "--out", str(tmp_path / "out"), cache=own)
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    told: list[str] = []
    assert process.stderr is not None
    hangs = threading.Timer(TIMEOUT, process.kill)
    hangs.daemon = True
    hangs.start()
    for line in process.stderr:
        told.append(line)
        if stage in line:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            break
    told += process.stderr.readlines()
    hangs.cancel()
    assert process.wait(TIMEOUT) == 130, "".join(told)
    assert "interrupted" in "".join(told)
    assert "Traceback" not in "".join(told)
    deadline = time.monotonic() + DEAD_SECONDS
    while processes_naming(own) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_naming(own) == []
    assert not (tmp_path / "out" / "report.json").exists()
    assert [path.name for path in own.rglob("*") if path.name.endswith((".part", ".partial", ".tmp"))] == []
