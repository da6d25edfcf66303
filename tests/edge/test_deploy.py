"""``python -m edge.deploy`` as a user runs it: the whole way on this machine, and each refusal's exit code."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from firmware_bridge.link.pty import PtyPair

TIMEOUT = 280


def deploy(*arguments: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge.deploy", *arguments]
    variables = {
        **os.environ,
        "EDGE_CACHE": str(cache),
        "EDGE_KEYS": str(cache / "keys"),
        "OMP_WAIT_POLICY": "passive",
        **environment,
    }
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def test_the_demo_model_runs_on_this_machine_and_agrees_with_the_oracle(
    tmp_path: Path, with_engines: Callable[[Path], Path]
) -> None:
    options = ["--board", "host", "--virtual", "--steps", "6", "--inspect-from", "0.5", "--generate", "3", "--json"]
    done = deploy(*options, "--out", str(tmp_path / "out"), cache=with_engines(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [job["title"] for job in report["jobs"]] == ["generate 3", "inspect brick", "inspect brick-scratched"]
    assert all(job["psnr_oracle_db"] is None or job["psnr_oracle_db"] >= 40 for job in report["jobs"])
    assert [job["bit_equal"] for job in report["jobs"]] == [True, True, True]
    assert [job["steps"] for job in report["jobs"]] == [6, 3, 3]
    assert report["bytes_sent"] > report["program_bytes"]
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    with Image.open(tmp_path / "out" / "jobs.png") as picture:
        assert picture.width > 4 * 64


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--board", "rpi6"], 3, "rpi5"),
        (["--board", "rpi5", "--steps", "1"], 2, "--steps"),
        (["--board", "rpi5", "--virtual", "--port", "auto"], 2, "--port"),
        (["--board", "rpi5", "--model", "no-such-folder"], 4, "no-such-folder"),
        (["--board", "rpi5", "--port", "/dev/no-such-port"], 8, "no-such-port"),
        (["--board", "rpi5", "--port", "auto"], 8, "no serial port"),
    ],
)
def test_what_cannot_work_is_refused_before_the_long_work(
    arguments: list[str], code: int, words: str, tmp_path: Path
) -> None:
    done = deploy(*arguments, cache=tmp_path, EDGE_PORTS="")
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not any(tmp_path.iterdir())


def test_two_ports_are_listed_and_none_is_chosen(tmp_path: Path) -> None:
    with PtyPair() as one, PtyPair() as two:
        ports = f"{one.host_path}:{two.host_path}"
        done = deploy("--board", "rpi5", cache=tmp_path, EDGE_PORTS=ports)
        assert done.returncode == 8
        assert one.host_path in done.stderr
        assert two.host_path in done.stderr


def test_a_pickled_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x04.")
    done = deploy("--board", "rpi5", "--model", str(tmp_path / "model.ckpt"), cache=tmp_path / "c")
    assert done.returncode == 4
    assert "pickle" in done.stderr


def test_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    Image.new("L", (32, 48)).save(tmp_path / "small.png")
    image = str(tmp_path / "small.png")
    done = deploy("--board", "rpi5", "--image", image, cache=tmp_path / "c", EDGE_PORTS="")
    assert done.returncode == 12
    assert "32x48" in done.stderr


def test_pictures_with_the_same_name_are_two_jobs(tmp_path: Path) -> None:
    from torch import nn

    from calib import adapt
    from edge.deploy.jobs import wanted_jobs
    from edge.deploy.options import DeployOptions

    paths = (tmp_path / "a" / "part.png", tmp_path / "b" / "part.png")
    for value, path in enumerate(paths):
        path.parent.mkdir()
        Image.new("L", (8, 8), value).save(path)
    options = DeployOptions("host", None, None, False, "ddim", 10, (5,), paths, 0.8, tmp_path, tmp_path)
    model = adapt(nn.Linear(8, 8), sample_shape=(1, 8, 8), call=lambda net, x, _: net(x))
    jobs = wanted_jobs(options, model, 10)
    assert [(job.seed, job.start, job.image is None) for job in jobs] == [(5, 0, True), (7, 8, False), (7, 8, False)]
    assert [int(job.image.max()) for job in jobs if job.image is not None] == [0, 1]


def test_a_job_with_other_bits_than_this_machines_engine_fails_the_deployment() -> None:
    import numpy as np
    import torch

    from edge.deploy.stream import Job, Outcome
    from edge.deploy.verify import Verdict, require_agreement
    from edge.errors import DeviceError, EngineError

    image = np.zeros((1, 2, 2), np.float32)
    outcome = Outcome(Job("generate 5", 5), image, None, {})

    def verdict(*, bit_equal: bool | None, oracle_db: float) -> Verdict:
        return Verdict(outcome, bit_equal, oracle_db, 60.0, 60.0, 40.0, None, torch.from_numpy(image))

    require_agreement([verdict(bit_equal=True, oracle_db=70.0), verdict(bit_equal=None, oracle_db=60.0)])
    with pytest.raises(EngineError, match="generate 5") as wrong:
        require_agreement([verdict(bit_equal=False, oracle_db=120.0)])
    assert wrong.value.exit_code == 11
    with pytest.raises(DeviceError, match=r"59\.0 dB"):
        require_agreement([verdict(bit_equal=True, oracle_db=59.0)])
