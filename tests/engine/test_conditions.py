"""Jobs with conditions and fresh noise, in the engine process: the reference's bits, slots apart, refusals."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.nn import functional

from calib import adapt, build_sampler, calibrate, guided, modulate, sample, start_generation, start_inspection
from calib.calibration import CalibrationConfig
from calib.modulated import ModulatedModel
from calib.noise import noise_batch
from calib.samplers import Sampler
from calib.schedules import NoiseSchedule
from edge.device.engine_process import EngineCommand, EngineProcess
from edge.device.errors import EngineRefused
from edge.lower.export import lower
from edge.toolchain import build_engine

STEPS = 5
SHAPE = (2, 7, 9)
SEED = 41

Floats = npt.NDArray[np.float32]
Conditions = dict[str, torch.Tensor]


class ExactConditioned(nn.Module):
    """Takes a class and a hint; every operation is exact or rounds once."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(4, 8)
        self.hint = nn.Linear(3, 8)
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor, hint: torch.Tensor) -> torch.Tensor:
        shift = self.rows(label) + self.hint(hint) + (t * 2.0**-10)[:, None]
        return self.last(functional.relu(self.first(x) + shift[:, :, None, None]))


@dataclass(frozen=True)
class Program:
    path: Path
    program_id: str
    state_bytes: int
    modulated: ModulatedModel
    sampler: Sampler


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    torch.manual_seed(5)
    torch.set_num_threads(1)
    schedule = dataclasses.replace(NoiseSchedule.linear(), clip=1.5)
    examples = {"label": torch.tensor([0, 1, 2, 3]), "hint": torch.randn(4, 3)}
    adapted = adapt(ExactConditioned(), sample_shape=SHAPE, time=schedule, conditions=examples)
    model = guided(adapted, 1.5, {"label": torch.tensor([0])})
    sampler = build_sampler("ddpm", STEPS, schedule)
    calibration = calibrate(model, sampler, CalibrationConfig(seeds=4, batch=4, residual_every=2))
    modulated = modulate(model, calibration)
    lowered = lower(modulated, sampler, SHAPE, model.conditions)
    path = tmp_path_factory.mktemp("conditioned") / "program.pte"
    path.write_bytes(lowered.data)
    return Program(path, hashlib.sha256(lowered.data).hexdigest(), lowered.state_bytes, modulated, sampler)


@pytest.fixture
def engine(program: Program) -> Iterator[EngineProcess]:
    command = EngineCommand(build_engine("host").engine, program.path, program.program_id, 2, 2 * program.state_bytes)
    with EngineProcess(command) as process:
        yield process


def conditions(label: int, hint: float) -> Conditions:
    return {"label": torch.tensor([label]), "hint": torch.tensor([[hint, -hint, 0.25]])}


def packed(given: Conditions) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in given.values())


def reference(program: Program, seed: int, given: Conditions, image: Floats | None = None, start: int = 0) -> Floats:
    noise = noise_batch([seed], SHAPE)
    if image is None:
        x = start_generation(program.sampler, noise)
    else:
        x = start_inspection(program.sampler, torch.from_numpy(image)[None], noise, start)
    out = sample(program.modulated, program.sampler, x, start, seeds=[seed], conditions=given)
    result: Floats = out.numpy().ravel()
    return result


def finish(engine: EngineProcess, slot: int) -> Floats:
    while engine.step(slot).left:
        pass
    return np.frombuffer(engine.result(slot).image, "<f4")


def refused(request: Callable[[], object], code: int) -> None:
    with pytest.raises(EngineRefused) as refusal:
        request()
    assert refusal.value.code == code


def test_interleaved_jobs_have_their_own_conditions_and_noise(engine: EngineProcess, program: Program) -> None:
    assert engine.info.condition_bytes == 8 + 12
    jobs = [(SEED, conditions(1, 0.5)), (SEED, conditions(3, -1.0))]
    for slot, (seed, given) in enumerate(jobs):
        engine.begin(slot, seed, 0, None, conditions=packed(given))
    for _ in range(STEPS - 1):
        for slot in range(2):
            engine.step(slot)
    images = [finish(engine, slot) for slot in range(2)]
    for image, (seed, given) in zip(images, jobs, strict=True):
        np.testing.assert_array_equal(image, reference(program, seed, given))
    assert not np.array_equal(*images), "the class shows"


def test_each_steps_noise_is_its_own_draw(engine: EngineProcess, program: Program) -> None:
    given = conditions(0, 0.0)
    images = []
    for seed in (SEED, SEED + 1):
        engine.begin(0, seed, 0, None, conditions=packed(given))
        images.append(finish(engine, 0))
        np.testing.assert_array_equal(images[-1], reference(program, seed, given))
    assert not np.array_equal(*images)


def test_an_inspection_takes_image_and_conditions(engine: EngineProcess, program: Program) -> None:
    image = np.random.default_rng(3).uniform(-1, 1, SHAPE).astype(np.float32)
    given = conditions(2, 0.75)
    engine.begin(0, SEED, 2, image.tobytes(), conditions=packed(given))
    np.testing.assert_array_equal(finish(engine, 0), reference(program, SEED, given, image, 2))


def test_a_snapshot_carries_the_conditions(engine: EngineProcess, program: Program) -> None:
    given = conditions(3, 2.0)
    engine.begin(0, SEED, 0, None, conditions=packed(given))
    engine.step(0)
    blob = engine.snapshot(0)
    engine.begin(0, SEED, 0, None, conditions=packed(conditions(0, 0.0)))
    engine.restore(1, blob)
    np.testing.assert_array_equal(finish(engine, 1), reference(program, SEED, given))


def test_conditions_that_do_not_fit_are_refused(engine: EngineProcess, program: Program) -> None:
    given = conditions(1, 1.0)
    whole, image = packed(given), bytes(4 * 2 * 7 * 9)
    refused(lambda: engine.begin(0, SEED, 0, None), 12)
    refused(lambda: engine.begin(0, SEED, 0, None, conditions=whole[:-1]), 12)
    refused(lambda: engine.begin(0, SEED, 1, image, conditions=whole + b"\0"), 12)
    refused(lambda: engine.begin(0, SEED, 1, image[:9], conditions=whole), 5)
    refused(lambda: engine.begin(0, SEED, 0, None, conditions=packed(conditions(1, float("nan")))), 6)
    refused(lambda: engine.step(0), 3)
    engine.begin(0, SEED, 0, None, conditions=whole)
    np.testing.assert_array_equal(finish(engine, 0), reference(program, SEED, given))


def test_a_class_that_does_not_exist_ends_its_job_alone(engine: EngineProcess, program: Program) -> None:
    engine.begin(0, SEED, 0, None, conditions=packed(conditions(9, 1.0)))
    given = conditions(2, 1.0)
    engine.begin(1, SEED, 0, None, conditions=packed(given))
    refused(lambda: engine.step(0), 10)
    np.testing.assert_array_equal(finish(engine, 1), reference(program, SEED, given))
