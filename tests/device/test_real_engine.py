"""The real thing on this machine: tiny UNet, lowered program, C++ engine, supervisor, pty, client, oracle."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from boards import load_board
from edge.bundle import Bundle, Contents, pack_bundle
from edge.device.selftest import psnr
from edge.virtual import VirtualBoard, virtual_board
from firmware_bridge.client import Client
from firmware_bridge.errors import DeviceRefused, JobInputError
from firmware_bridge.jobs import Failure, JobRequest, Progress, Result

from .kills import refereed
from .real_bundle import LEAST_DB, SHAPE, STEPS, Made, make, twin

if TYPE_CHECKING:
    import numpy.typing as npt

SIZE = 4 * 16 * 16


@pytest.fixture(scope="module")
def made(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tiny_model_folder, tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def board(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualBoard]:
    with virtual_board(load_board("host"), tmp_path_factory.mktemp("board")) as running:
        with Client.open(running.port) as client:
            deploy(client, made.bundle)
        yield running


@pytest.fixture
def client(board: VirtualBoard) -> Iterator[Client]:
    with Client.open(board.port) as opened:
        yield opened


def deploy(client: Client, bundle: Bundle) -> None:
    for file in bundle.manifest.files:
        client.upload(file.sha256, bundle.folder / file.name)
    client.upload(bundle.bundle_id, bundle.folder / "manifest.json")
    client.activate(bundle.bundle_id)


def generate(job_id: str, seed: int) -> JobRequest:
    return JobRequest(job_id, "generate", {"seed": seed})


def inspection(job_id: str, seed: int, start: int, image: npt.NDArray[np.generic]) -> JobRequest:
    params = {"seed": seed, "start": start, "dtype": str(image.dtype)}
    return JobRequest(job_id, "inspect", params, image.tobytes())


def ends(client: Client) -> dict[str, Result | Failure]:
    return {event.job_id: event for event in client.events() if not isinstance(event, Progress)}


def textured() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, SHAPE, np.uint8)


def test_generating_agrees_with_the_oracle(client: Client, made: Made) -> None:
    steps: list[int] = []
    result = client.run(generate("generate", 11), lambda progress: steps.append(progress.step))
    assert psnr(result.payload, made.generate(11)) >= LEAST_DB
    assert steps == list(range(1, STEPS + 1))
    assert all(isinstance(result.meta[name], int) for name in ("saturated", "residual_passes", "macs", "peak_rss"))
    assert result.meta["passes"] == (STEPS + 1) * made.layers  # the anchor has two
    assert result.meta["state_bytes"] == made.bundle.manifest.memory.state_bytes


def test_inspecting_agrees_with_the_oracle(client: Client, made: Made) -> None:
    from calib.inspection import anomaly_map
    from calib.sampling import to_float

    pixels = textured()
    image = to_float(pixels)
    result = client.run(inspection("inspect", 12, 3, pixels))
    again = client.run(inspection("inspect-float", 12, 3, image))
    assert result.payload == again.payload
    reconstruction, anomalies = result.payload[:SIZE], result.payload[SIZE:]
    assert psnr(reconstruction, made.inspect(image, 12, 3)) >= LEAST_DB
    wanted = anomaly_map(image, np.frombuffer(reconstruction, "<f4").reshape(SHAPE))
    found = np.frombuffer(anomalies, "<f4").reshape(16, 16)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert result.meta["score"] == pytest.approx(float(wanted.max()), rel=1e-5)


def test_two_interleaved_jobs_give_the_bits_that_each_gives_alone(client: Client) -> None:
    jobs = [generate("alone-a", 21), inspection("alone-b", 22, 3, textured())]
    alone = [client.run(job).payload for job in jobs]
    for job, name in zip(jobs, ("together-a", "together-b"), strict=True):
        client.submit(dataclasses.replace(job, job_id=name))
    together = ends(client)
    results = [together[name] for name in ("together-a", "together-b")]
    assert [result.payload for result in results if isinstance(result, Result)] == alone


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_image_that_is_not_finite(client: Client, value: float) -> None:
    image = np.zeros(SHAPE, np.float32)
    image[0, 3, 4] = value
    with pytest.raises(JobInputError):
        client.run(inspection(f"not-finite-{value}", 1, 4, image))
    assert client.run(generate(f"after-{value}", 1)).payload


def test_an_image_of_the_wrong_size(client: Client) -> None:
    with pytest.raises(JobInputError, match="1x16x16 uint8, 256 bytes"):
        client.run(JobRequest("wrong-size", "inspect", {"seed": 1, "start": 4, "dtype": "uint8"}, bytes(255)))
    assert client.run(generate("after-wrong-size", 1)).payload


def test_the_engine_killed_in_mid_job(client: Client, board: VirtualBoard) -> None:
    whole = client.run(generate("before-the-kill", 31)).payload
    for n in range(20):  # a step takes a millisecond or two: the kill may come after the last one
        client.submit(generate(f"victim-{n}", 31))
    killed = False
    failures = []
    for event in client.events():
        if isinstance(event, Progress) and not killed:
            os.kill(engine_of(board.pid), signal.SIGKILL)
            killed = True
        if isinstance(event, Failure):
            failures.append(event)
    assert 1 <= len(failures) <= 2
    assert "SIGKILL" in failures[0].message
    assert client.run(generate("after-the-kill", 31)).payload == whole


def engine_of(supervisor: int) -> int:
    """The supervisor's only child."""
    tasks = Path(f"/proc/{supervisor}/task").iterdir()
    return next(int(pid) for task in tasks for pid in (task / "children").read_text().split())


def test_cancelling(client: Client) -> None:
    for n in range(10):
        client.submit(generate(f"wanted-{n}", n))
    client.submit(generate("unwanted", 1))
    client.cancel("unwanted")
    found = ends(client)
    assert sum(isinstance(end, Result) for end in found.values()) == 10
    unwanted = found["unwanted"]
    assert isinstance(unwanted, Failure)
    assert "cancelled" in unwanted.message


def test_a_golden_output_that_differs_is_refused_and_the_old_bundle_stays(
    client: Client, made: Made, tmp_path: Path
) -> None:
    whole = client.run(generate("before-the-refusal", 41)).payload
    golden = np.frombuffer((made.bundle.folder / "golden.f32").read_bytes(), "<f4") + np.float32(0.01)
    files = made.bundle.manifest.files
    engine = sorted((file for file in files if file.role in ("engine", "library")), key=lambda file: file.role)
    paths = [made.bundle.folder / file.name for file in engine]
    program = (made.bundle.folder / "program.pte").read_bytes()
    bad = pack_bundle(tmp_path / "bad", Contents(made.bundle.manifest, program, paths, golden.tobytes()))
    with pytest.raises(DeviceRefused, match="dB against the golden output"):
        deploy(client, bad)
    assert client.refresh().active_bundle == made.bundle.bundle_id
    assert client.run(generate("after-the-refusal", 41)).payload == whole


def test_a_program_that_is_cut_short_is_refused(client: Client, made: Made, tmp_path: Path) -> None:
    files = made.bundle.manifest.files
    engine = sorted((file for file in files if file.role in ("engine", "library")), key=lambda file: file.role)
    paths = [made.bundle.folder / file.name for file in engine]
    program = (made.bundle.folder / "program.pte").read_bytes()[:-5000]
    memory = dataclasses.replace(made.bundle.manifest.memory, program_bytes=len(program))
    manifest = dataclasses.replace(made.bundle.manifest, memory=memory)
    golden = (made.bundle.folder / "golden.f32").read_bytes()
    bad = pack_bundle(tmp_path / "bad", Contents(manifest, program, paths, golden))
    with pytest.raises(DeviceRefused, match="the program cannot be read"):
        deploy(client, bad)
    assert client.run(generate("after-the-cut", 1)).payload


def test_a_state_budget_below_one_slot_refuses_the_bundle(made: Made, tmp_path: Path) -> None:
    text = (Path(load_board.__code__.co_filename).parent / "host.toml").read_text()
    small = text.replace('state_budget_bytes = "512 MiB"', "state_budget_bytes = 1000")
    assert small != text
    path = tmp_path / "small.toml"
    path.write_text(small)
    with (
        virtual_board(load_board(path), tmp_path / "board", board_file=path) as running,
        Client.open(running.port) as client,
        pytest.raises(DeviceRefused, match="state_budget_bytes = 1000"),
    ):
        deploy(client, made.bundle)


def test_kills_of_host_supervisor_and_engine(made: Made, tmp_path: Path) -> None:
    """A few; ``python -m tests.device.kills --kills 500`` for more."""
    with refereed([made.bundle.folder, twin(made, tmp_path / "twin")], tmp_path, seed=7) as referee:
        while referee.tally.kills.total() < 12:
            referee.round(3)
    assert set(referee.tally.kills) >= {"host", "supervisor"}
