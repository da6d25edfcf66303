"""The adjoint sweep against finite differences: gains and projections say what errors do to the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch

from calib.adjoint import Sweep, sweep
from calib.models import load_model
from calib.noise import noise_batch
from calib.samplers import Sampler, build_sampler
from calib.sampling import sample, start_generation

if TYPE_CHECKING:
    from pathlib import Path

    from calib.adapters import PretrainedModel

STEPS, STEP, PROBES = 4, 1, 48
SEEDS = range(1_000_000, 1_000_002)
POINT = "unet.up_blocks.0"
LAYER = "unet.up_blocks.0.resnets.0.conv1"

Case = tuple["PretrainedModel", Sampler, Sweep]


@pytest.fixture(scope="module", params=["dpmpp2m", "ddim"])
def case(request: pytest.FixtureRequest, tiny_model_folder: Path) -> Case:
    model = load_model(tiny_model_folder)
    sampler = build_sampler(request.param, STEPS, model.schedule)
    return model, sampler, sweep(model, sampler, SEEDS, layers=[LAYER], points=[POINT], probes=PROBES)


def image_with(case: Case, name: str, change: Callable[[torch.Tensor], torch.Tensor], *, before: bool) -> torch.Tensor:
    """The image where a module's input or output is changed at step ``STEP``."""
    model, sampler, _ = case
    module, calls = dict(model.denoiser.named_modules())[name], []

    def enter(_: object, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        calls.append(1)
        return (change(inputs[0]), *inputs[1:]) if before and len(calls) == STEP + 1 else None

    def leave(_: object, __: object, output: torch.Tensor) -> torch.Tensor:
        return output if before or len(calls) != STEP + 1 else change(output)

    handles = [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        return sample(model.denoiser, sampler, start_generation(sampler, noise_batch(SEEDS, model.sample_shape)))
    finally:
        for handle in handles:
            handle.remove()


def test_lots_of_seeds_are_swept_as_all_together(case: Case) -> None:
    model, sampler, seen = case
    parts = sweep(model, sampler, SEEDS, layers=[LAYER], points=[POINT], probes=PROBES, batch=1)
    assert torch.allclose(parts.images, seen.images, rtol=0.01, atol=0.01 * float(seen.images.abs().max()))
    assert torch.allclose(parts.step_gain, seen.step_gain, rtol=0.02)
    assert torch.allclose(parts.layers[LAYER].input_gain, seen.layers[LAYER].input_gain, rtol=0.02)
    assert torch.allclose(parts.layers[LAYER].output_gain, seen.layers[LAYER].output_gain, rtol=0.02)
    assert torch.allclose(parts.layers[LAYER].distance, seen.layers[LAYER].distance, rtol=0.02, atol=1e-5)
    scale = float(seen.projections[POINT].abs().max())
    assert torch.allclose(parts.projections[POINT], seen.projections[POINT], rtol=0, atol=0.02 * scale)


def test_the_forward_half_is_the_sampler(case: Case) -> None:
    model, sampler, seen = case
    expected = sample(model.denoiser, sampler, start_generation(sampler, noise_batch(SEEDS, model.sample_shape)))
    assert torch.equal(seen.images, expected)
    layer = seen.layers[LAYER]
    assert (layer.inputs, layer.outputs) == (64 * 8 * 8, 32 * 8 * 8)
    assert layer.macs == 64 * 32 * 9 * 64
    assert layer.distance.diagonal().abs().max() < 1e-9
    assert layer.largest_change[0] == 0 < layer.largest_change[1]


def test_gains_predict_the_error_of_noise_at_a_layers_input(case: Case) -> None:
    seen, sigma, measured = case[2], 1e-3, []
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        noisy = image_with(
            case, LAYER, lambda x, g=generator: x + sigma * torch.randn(x.shape, generator=g), before=True
        )
        measured.append(float((noisy - seen.images).double().square().mean()))
    predicted = sigma**2 * float(seen.layers[LAYER].input_gain[STEP])
    assert sum(measured) / len(measured) == pytest.approx(predicted, rel=0.35)


def test_projections_predict_the_error_of_reusing_a_block(case: Case) -> None:
    model, sampler, seen = case
    outputs: list[torch.Tensor] = []
    hook = dict(model.denoiser.named_modules())[POINT].register_forward_hook(lambda _, __, y: outputs.append(y.clone()))
    sample(model.denoiser, sampler, start_generation(sampler, noise_batch(SEEDS, model.sample_shape)))
    hook.remove()
    share = 0.01  # first order: a small part of the way to the other step's output
    moved = image_with(case, POINT, lambda y: y + share * (outputs[STEP - 1] - y), before=False)
    measured = float((moved - seen.images).double().square().mean())
    row = seen.projections[POINT][:, :, STEP]
    predicted = float((share * (row[..., STEP - 1] - row[..., STEP])).square().mean())
    assert measured == pytest.approx(predicted, rel=0.5)
