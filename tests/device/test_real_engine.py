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
from edge.console import Stages
from edge.deploy.predict import bit_equal
from edge.deploy.stream import Job, Outcome
from edge.device.selftest import psnr
from edge.errors import EngineError
from edge.lower.golden import engine_golden
from edge.virtual import VirtualBoard, virtual_board
from firmware_bridge.client import Client
from firmware_bridge.errors import DeviceRefused, JobInputError
from firmware_bridge.jobs import Failure, JobRequest, Progress, Result

from .kills import refereed
from .real_bundle import LEAST_DB, SHAPE, STEPS, Made, make, reference_images, twin

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


def test_strange_images_are_flagged_and_others_are_not(client: Client, made: Made) -> None:
    rng = np.random.default_rng(9)
    usual = reference_images(seed=1, count=1)[0].numpy()
    images = {
        "usual": usual,
        "inverted": -usual,
        "constant": np.full(SHAPE, 0.5, np.float32),
        "noise": rng.uniform(-1, 1, SHAPE).astype(np.float32),
    }
    metas = {name: client.run(inspection(f"flag-{name}", 1, 5, image)).meta for name, image in images.items()}
    assert {name: meta["novel"] for name, meta in metas.items()} == {name: name != "usual" for name in images}
    for name, image in images.items():
        assert metas[name]["novelty"] == pytest.approx(made.novelty.novelty(image), rel=1e-5)
    assert client.run(generate("flag-none", 1)).meta["novelty"] is None


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


def with_parts(made: Made, folder: Path, *, program: bytes | None = None, golden: bytes | None = None) -> Bundle:
    """The bundle with another program or golden output, its manifest true to them."""
    source, manifest = made.bundle.folder, made.bundle.manifest
    engine = sorted((file for file in manifest.files if file.role in ("engine", "library")), key=lambda file: file.role)
    program = program or (source / "program.pte").read_bytes()
    memory = dataclasses.replace(manifest.memory, program_bytes=len(program))
    contents = Contents(
        dataclasses.replace(manifest, memory=memory),
        program,
        [source / file.name for file in engine],
        golden or (source / "golden.f32").read_bytes(),
    )
    return pack_bundle(folder, contents)


def test_a_golden_output_that_differs_by_one_bit_is_refused_and_the_old_bundle_stays(
    client: Client, made: Made, tmp_path: Path
) -> None:
    assert made.bundle.manifest.golden.exact
    whole = client.run(generate("before-the-refusal", 41)).payload
    golden = bytearray((made.bundle.folder / "golden.f32").read_bytes())
    golden[400] ^= 1
    with pytest.raises(DeviceRefused, match="1 of 256 values are not the golden output's, bit for bit"):
        deploy(client, with_parts(made, tmp_path / "bad", golden=bytes(golden)))
    assert client.refresh().active_bundle == made.bundle.bundle_id
    assert client.run(generate("after-the-refusal", 41)).payload == whole


def test_a_program_with_one_bit_of_a_weight_flipped_is_refused(client: Client, made: Made, tmp_path: Path) -> None:
    from edge.packing import WeightShape, pack

    program = bytearray((made.bundle.folder / "program.pte").read_bytes())
    plain = made.modulated.layers["unet.conv_in"].arithmetic.planes[0].weight
    weight = pack(plain, WeightShape(16, 1, (3, 3))).numpy().tobytes()
    place = program.find(weight)
    assert place > 0
    program[place + next(i for i, byte in enumerate(weight) if byte)] ^= 1
    with pytest.raises(DeviceRefused, match="are not the golden output's, bit for bit"):
        deploy(client, with_parts(made, tmp_path / "bad", program=bytes(program)))
    assert client.run(generate("after-the-flip", 1)).payload


def test_this_machines_engine_foretells_the_devices_bits(client: Client, made: Made) -> None:
    pixels = textured()
    jobs = [Job("generate", 51), Job("inspect", 52, 3, pixels)]
    requests = [generate("foretold-a", 51), inspection("foretold-b", 52, 3, pixels)]
    outcomes = []
    for job, request in zip(jobs, requests, strict=True):
        seen = client.run(request)
        values = np.frombuffer(seen.payload, "<f4")
        anomalies = values[256:].reshape(16, 16) if job.image is not None else None
        outcomes.append(Outcome(job, values[:256].reshape(SHAPE), anomalies, seen.meta))
    assert bit_equal(made.bundle, made.engine, outcomes, Stages()) == [True, True]
    other = outcomes[1].x.copy()
    other.view("u4")[0, 7, 7] ^= 1
    changed = [outcomes[0], dataclasses.replace(outcomes[1], x=other)]
    assert bit_equal(made.bundle, made.engine, changed, Stages()) == [True, False]


def test_an_engine_far_from_the_oracle_cannot_make_a_golden_output(made: Made) -> None:
    oracle = np.frombuffer(made.inspect(np.zeros(SHAPE, np.float32), 5, 3), "<f4")
    far = (oracle + np.float32(0.01)).tobytes()
    with pytest.raises(EngineError, match=r"46\.0 dB of the oracle in the self-test, 60\.0 dB are needed"):
        engine_golden(made.bundle.manifest.golden, far, made.program, made.engine)


def test_a_program_that_is_cut_short_is_refused(client: Client, made: Made, tmp_path: Path) -> None:
    program = (made.bundle.folder / "program.pte").read_bytes()[:-5000]
    with pytest.raises(DeviceRefused, match="the program cannot be read"):
        deploy(client, with_parts(made, tmp_path / "bad", program=program))
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
