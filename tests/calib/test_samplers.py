"""The tables against diffusers' schedulers, over whole trajectories."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from calib.errors import CalibrationError, ModelError
from calib.noise import noise_batch
from calib.samplers import NoiseSchedule, Sampler, build_sampler


def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A smooth stand-in for a network: bounded, depends on both arguments."""
    return 0.9 * x + 0.2 * torch.sin(3 * x + 0.01 * t)


def ours(sampler: Sampler, x: torch.Tensor) -> list[torch.Tensor]:
    path, previous = [], torch.zeros_like(x)
    for i, t in enumerate(sampler.timesteps):
        x, previous = sampler.advance(i, x, denoise(x, t), previous, first=i == 0)
        path.append(x)
    return path


def theirs(scheduler: DDIMScheduler | DPMSolverMultistepScheduler, steps: int, x: torch.Tensor) -> list[torch.Tensor]:
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # Karras timesteps may repeat, diffusers would look the first one up
    path = []
    for t in scheduler.timesteps:
        x = scheduler.step(denoise(x, t), t, x).prev_sample
        path.append(x)
    return path


def assert_same_path(sampler: Sampler, scheduler: DDIMScheduler | DPMSolverMultistepScheduler) -> None:
    x = noise_batch([1, 2], (1, 8, 8))
    expected = theirs(scheduler, sampler.steps, x)
    # The cosine schedule starts at sigma/alpha = 2e4, where float32 cancels most of its digits.
    tolerance = 1e-3 if scheduler.config.beta_schedule == "squaredcos_cap_v2" else 2e-4
    assert sampler.timesteps.tolist() == scheduler.timesteps.tolist()
    for i, (a, b) in enumerate(zip(ours(sampler, x), expected, strict=True)):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=lambda text, i=i: f"step {i}: {text}")


BETAS = [{}, {"beta_schedule": "scaled_linear", "beta_end": 0.012}, {"beta_schedule": "squaredcos_cap_v2"}]


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_dpmpp2m_equals_diffusers(betas: dict, steps: int, prediction: str) -> None:
    scheduler = DPMSolverMultistepScheduler(use_karras_sigmas=True, prediction_type=prediction, **betas)
    assert_same_path(build_sampler("dpmpp2m", steps, NoiseSchedule.from_diffusers(scheduler.config)), scheduler)


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("steps", [1, 10, 50, 1000])
def test_ddim_equals_diffusers(betas: dict, clip: bool, steps: int) -> None:
    scheduler = DDIMScheduler(clip_sample=clip, **betas)
    assert_same_path(build_sampler("ddim", steps, NoiseSchedule.from_diffusers(scheduler.config)), scheduler)


@pytest.mark.parametrize(
    "setting",
    [
        {"timestep_spacing": "trailing"},
        {"timestep_spacing": "linspace"},
        {"steps_offset": 1, "set_alpha_to_one": False},
        {"prediction_type": "v_prediction"},
        {"prediction_type": "sample"},
        {"clip_sample_range": 0.5},
    ],
)
def test_ddim_follows_every_setting(setting: dict) -> None:
    scheduler = DDIMScheduler(**setting)
    assert_same_path(build_sampler("ddim", 20, NoiseSchedule.from_diffusers(scheduler.config)), scheduler)


def test_a_ddpm_folder_gives_the_schedule_that_diffusers_trains_with() -> None:
    scheduler = DDPMScheduler()
    schedule = NoiseSchedule.from_diffusers(scheduler.config)
    np.testing.assert_allclose(schedule.alphas_cumprod, scheduler.alphas_cumprod.numpy(), rtol=2e-6)


def test_a_job_that_starts_late_is_first_order_there() -> None:
    schedule = NoiseSchedule.from_diffusers({})
    sampler = build_sampler("dpmpp2m", 20, schedule)
    assert torch.equal(sampler.first_coefficients[:, 5], torch.zeros(20))
    assert (sampler.coefficients[1:-1, 5] != 0).all()
    x, junk = noise_batch([3], (1, 4, 4)), torch.full((1, 1, 4, 4), 5.0)
    out = denoise(x, sampler.timesteps[9])
    late, _ = sampler.advance(9, x, out, junk, first=True)
    alone, _ = sampler.advance(9, x, out, torch.zeros_like(x), first=True)
    assert torch.equal(late, alone)


@pytest.mark.parametrize("name", ["ddim", "dpmpp2m"])
def test_start_coefficients_are_a_unit_marginal(name: str) -> None:
    sampler = build_sampler(name, 50, NoiseSchedule.from_diffusers({}))
    torch.testing.assert_close(sampler.start_coefficients.square().sum(1), torch.ones(50))
    assert (sampler.start_coefficients[:, 0].diff() > 0).all()


@pytest.mark.parametrize(
    "setting",
    [
        {"prediction_type": "flow_prediction"},
        {"thresholding": True},
        {"timestep_spacing": "random"},
        {"beta_schedule": "sigmoid"},
        {"rescale_betas_zero_snr": True},
        {"beta_end": 2.0},
    ],
)
def test_a_schedule_that_no_table_expresses_is_refused(setting: dict) -> None:
    with pytest.raises(ModelError):
        NoiseSchedule.from_diffusers(setting)


@pytest.mark.parametrize(("name", "steps"), [("euler", 10), ("ddim", 0), ("dpmpp2m", 1001)])
def test_unknown_samplers_and_step_counts_are_refused(name: str, steps: int) -> None:
    with pytest.raises(CalibrationError):
        build_sampler(name, steps, NoiseSchedule.from_diffusers({}))
