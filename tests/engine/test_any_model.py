"""Denoisers that are not the demo's, from PyTorch to the engine, which computes what the reference does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import any_models as models
import numpy as np
import pytest
import torch

from calib import build_sampler, calibrate, check_supported, modulate, noise_batch, sample, start_generation
from calib.adapters import PretrainedModel
from calib.calibration import CalibrationConfig
from edge.device.engine_process import EngineCommand, EngineProcess
from edge.lower.export import lower
from edge.toolchain import build_engine

SEEDS = (5, 6)
LEAST_DB = 50.0
"""Against the reference; float operations between the layers may round otherwise and flip codes."""

CASES: dict[str, tuple[Callable[[Path], PretrainedModel], str, int]] = {
    "mixer, score, continuous time": (lambda _: models.mixer(), "heun", 3),
    "conv1d, flow": (lambda _: models.wave(), "flow-euler", 4),
    "mobile blocks, noise levels": (lambda _: models.mobile(), "euler", 4),
    "transformer, EDM": (lambda _: models.tokens(), "euler", 4),
    "UNet with classes": (models.label_unet, "ddpm", 4),
    "UNet with texts and guidance": (models.text_unet, "dpmpp2m", 4),
    "DiT": (models.dit, "ddim", 4),
}


@pytest.mark.parametrize("case", CASES)
def test_the_engine_computes_what_the_reference_does(case: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    make, name, steps = CASES[case]
    model = make(tmp_path)
    sampler = build_sampler(name, steps, model.schedule)
    calibration = calibrate(model, sampler, CalibrationConfig(seeds=4, batch=4, residual_every=2))
    assert set(calibration.layers) <= set(check_supported(model).modulated)
    modulated = modulate(model, calibration)
    program = lower(modulated, sampler, model.sample_shape, model.conditions)
    path = tmp_path / "program.pte"
    path.write_bytes(program.data)
    digest = hashlib.sha256(program.data).hexdigest()
    jobs = [model.example_conditions(1, k) for k in range(2)]
    command = EngineCommand(build_engine("host").engine, path, digest, 2, 2 * program.state_bytes)
    with EngineProcess(command) as engine:
        for slot, given in enumerate(jobs):
            engine.begin(slot, SEEDS[slot], 0, None, conditions=packed(given))
        for _ in range(sampler.steps):
            for slot in range(2):
                engine.step(slot)
        images = [np.frombuffer(engine.result(slot).image, "<f4") for slot in range(2)]
    for seed, given, image in zip(SEEDS, jobs, images, strict=True):
        x = start_generation(sampler, noise_batch([seed], model.sample_shape))
        expected = sample(modulated, sampler, x, seeds=[seed], conditions=given)
        assert decibels(torch.from_numpy(image.copy()).reshape(expected.shape), expected) > LEAST_DB


def packed(given: dict[str, torch.Tensor]) -> bytes:
    return b"".join(tensor.contiguous().numpy().tobytes() for tensor in given.values())


def decibels(a: torch.Tensor, b: torch.Tensor) -> float:
    """Signal over error."""
    return float(10 * torch.log10(b.square().mean() / (a - b).square().mean()))
