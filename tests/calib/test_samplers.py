"""The tables against diffusers' schedulers, over whole trajectories."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
)

from calib.errors import CalibrationError, ModelError
from calib.noise import noise_batch
from calib.samplers import COLUMNS, History, NoiseSchedule, Sampler, build_sampler
from calib.sampling import sample, start_generation, start_inspection
from calib.schedules import flow

SEEDS = (1, 2)

Scheduler: TypeAlias = Any
"""One of diffusers'; they share no base class that has their methods."""


def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A smooth stand-in for a network: bounded, depends on both arguments."""
    return 0.9 * x + 0.2 * torch.sin(3 * x + 0.01 * t)


def ours(sampler: Sampler, x: torch.Tensor, start: int = 0) -> list[torch.Tensor]:
    path: list[torch.Tensor] = []
    sample(denoise, sampler, x, start, lambda _, y: path.append(y), seeds=SEEDS)
    return path


def theirs(scheduler: Scheduler, x: torch.Tensor, start: int = 0) -> list[torch.Tensor]:
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)  # timesteps may repeat, diffusers would look the first one up
    path = []
    for i, t in enumerate(scheduler.timesteps[start:], start):
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(denoise(seen, t), t, x).prev_sample
        if isinstance(scheduler, DDPMScheduler) and t > 0:
            x = x + deviation(scheduler, t) * noise_batch(SEEDS, x.shape[1:], draw=i + 1)
        path.append(x)
    return path


def deviation(scheduler: DDPMScheduler, t: torch.Tensor) -> torch.Tensor:
    """How much noise DDPM adds; the scheduler itself draws none here (see ``quiet``)."""
    value: torch.Tensor = scheduler._get_variance(t)
    return value if scheduler.config.variance_type == "fixed_small_log" else value.sqrt()


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes DDPM's own random numbers away: ours are added in their place."""
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda shape, **_: torch.zeros(shape))


def assert_same_path(sampler: Sampler, scheduler: Scheduler, start: int = 0) -> None:
    x = noise_batch(SEEDS, (1, 8, 8)) * float(
        scheduler.init_noise_sigma if hasattr(scheduler, "init_noise_sigma") else 1
    )
    torch.testing.assert_close(x, start_generation(sampler, noise_batch(SEEDS, (1, 8, 8))), rtol=1e-6, atol=0)
    expected = theirs(scheduler, x, start)
    # The cosine schedule starts at sigma/alpha = 2e4, where float32 cancels most of its digits.
    tolerance = 1e-3 if scheduler.config.get("beta_schedule") == "squaredcos_cap_v2" else 2e-4
    assert sampler.timesteps.dtype == (torch.float32 if scheduler.timesteps.is_floating_point() else torch.int64)
    torch.testing.assert_close(sampler.timesteps, scheduler.timesteps.to(sampler.timesteps.dtype), rtol=1e-6, atol=1e-4)
    for i, (a, b) in enumerate(zip(ours(sampler, x, start), expected, strict=True)):
        allowed = tolerance * max(1.0, float(b.abs().max()))
        torch.testing.assert_close(a, b, rtol=tolerance, atol=allowed, msg=lambda text, i=i: f"step {i}: {text}")


def prepared(scheduler: Scheduler, steps: int) -> Scheduler:
    scheduler.set_timesteps(steps)
    return scheduler


BETAS = [{}, {"beta_schedule": "scaled_linear", "beta_end": 0.012}, {"beta_schedule": "squaredcos_cap_v2"}]
SPACINGS = ["leading", "trailing", "linspace"]
PREDICTIONS = ["epsilon", "v_prediction", "sample"]


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_dpmpp2m_equals_diffusers(betas: dict, steps: int, prediction: str) -> None:
    scheduler = DPMSolverMultistepScheduler(use_karras_sigmas=True, prediction_type=prediction, **betas)
    schedule = NoiseSchedule.from_diffusers(scheduler.config)
    assert_same_path(build_sampler("dpmpp2m", steps, schedule), prepared(scheduler, steps))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_dpmpp2m_without_karras_levels_equals_diffusers(spacing: str, steps: int) -> None:
    scheduler = DPMSolverMultistepScheduler(timestep_spacing=spacing)
    schedule = NoiseSchedule.from_diffusers(scheduler.config)
    assert_same_path(build_sampler("dpmpp2m", steps, schedule, karras=False), prepared(scheduler, steps))


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("steps", [1, 10, 50, 1000])
def test_ddim_equals_diffusers(betas: dict, clip: bool, steps: int) -> None:
    scheduler = DDIMScheduler(clip_sample=clip, **betas)
    schedule = NoiseSchedule.from_diffusers(scheduler.config)
    assert_same_path(build_sampler("ddim", steps, schedule), prepared(scheduler, steps))


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
    schedule = NoiseSchedule.from_diffusers(scheduler.config)
    assert_same_path(build_sampler("ddim", 20, schedule), prepared(scheduler, 20))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("steps", [1, 3, 25])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(
    "setting",
    [{}, {"clip_sample": False}, {"variance_type": "fixed_large"}, {"timestep_spacing": "trailing"}],
    ids=str,
)
def test_ddpm_equals_diffusers_with_our_noise(steps: int, prediction: str, setting: dict) -> None:
    scheduler = DDPMScheduler(prediction_type=prediction, **setting)
    schedule = NoiseSchedule.from_diffusers(scheduler.config)
    assert_same_path(build_sampler("ddpm", steps, schedule), prepared(scheduler, steps))


@pytest.mark.parametrize("betas", BETAS[:2])
@pytest.mark.parametrize("steps", [1, 2, 11])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize("name", ["euler", "heun"])
def test_euler_and_heun_equal_diffusers(name: str, betas: dict, steps: int, prediction: str, karras: bool) -> None:
    kind = {"euler": EulerDiscreteScheduler, "heun": HeunDiscreteScheduler}[name]
    scheduler = kind(use_karras_sigmas=karras, prediction_type=prediction, timestep_spacing="linspace", **betas)
    schedule = NoiseSchedule.from_diffusers({"clip_sample": False, **scheduler.config})
    assert_same_path(build_sampler(name, steps, schedule, karras=karras), prepared(scheduler, steps))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", ["euler", "heun"])
def test_euler_and_heun_follow_the_spacing(name: str, spacing: str) -> None:
    kind = {"euler": EulerDiscreteScheduler, "heun": HeunDiscreteScheduler}[name]
    scheduler = kind(timestep_spacing=spacing)
    schedule = NoiseSchedule.from_diffusers({"clip_sample": False, **scheduler.config})
    assert_same_path(build_sampler(name, 9, schedule), prepared(scheduler, 9))


def test_heun_clips_as_diffusers() -> None:
    scheduler = HeunDiscreteScheduler(clip_sample=True, clip_sample_range=0.5)
    schedule = NoiseSchedule.from_diffusers(scheduler.config)
    assert_same_path(build_sampler("heun", 8, schedule), prepared(scheduler, 8))


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 28])
def test_flow_euler_equals_diffusers(shift: float, steps: int) -> None:
    scheduler = prepared(FlowMatchEulerDiscreteScheduler(shift=shift), steps)
    assert_same_path(build_sampler("flow-euler", steps, flow(shift)), scheduler)
    assert torch.equal(
        build_sampler("euler", steps, flow(shift)).coefficients,
        build_sampler("flow-euler", steps, flow(shift)).coefficients,
    )


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("start", [1, 4, 9])
@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpmpp2m", "euler", "heun"])
def test_a_late_start_equals_diffusers_from_there(name: str, start: int) -> None:
    kind = {
        "ddim": DDIMScheduler,
        "ddpm": DDPMScheduler,
        "dpmpp2m": DPMSolverMultistepScheduler,
        "euler": EulerDiscreteScheduler,
        "heun": HeunDiscreteScheduler,
    }[name]
    settings = {"use_karras_sigmas": True} if name == "dpmpp2m" else {}
    scheduler = prepared(kind(timestep_spacing="linspace", **settings), 10)
    schedule = NoiseSchedule.from_diffusers({"clip_sample": name in {"ddim", "ddpm"}, **scheduler.config})
    start = 2 * start if name == "heun" else start
    assert_same_path(build_sampler(name, 10, schedule), scheduler, start)


@pytest.mark.parametrize("name", ["dpmpp2m", "euler", "heun"])
def test_partial_noise_equals_diffusers(name: str) -> None:
    kind = {"dpmpp2m": DPMSolverMultistepScheduler, "euler": EulerDiscreteScheduler, "heun": HeunDiscreteScheduler}
    settings = {"use_karras_sigmas": True} if name == "dpmpp2m" else {}
    scheduler = prepared(kind[name](timestep_spacing="linspace", **settings), 10)
    sampler = build_sampler(name, 10, NoiseSchedule.from_diffusers({"clip_sample": False, **scheduler.config}))
    image, noise = noise_batch([3], (1, 4, 4)), noise_batch([4], (1, 4, 4))
    scheduler.set_begin_index(4)
    expected = scheduler.add_noise(image, noise, scheduler.timesteps[4:5])
    torch.testing.assert_close(start_inspection(sampler, image, noise, 4), expected)


def test_heuns_second_evaluation_leaves_a_job_that_starts_there_as_it_is() -> None:
    schedule = NoiseSchedule.linear()
    sampler = build_sampler("heun", 6, schedule)
    x = 3 * noise_batch(SEEDS, (1, 4, 4))
    assert sampler.steps == 11
    torch.testing.assert_close(sampler.start_coefficients[3], sampler.start_coefficients[4])
    late, later = ours(sampler, x, 3), ours(sampler, x, 4)
    assert torch.equal(late[0], x)
    assert not torch.equal(late[1], x)
    assert torch.equal(late[1], later[0])


def test_a_ddpm_folder_gives_the_schedule_that_diffusers_trains_with() -> None:
    scheduler = DDPMScheduler()
    schedule = NoiseSchedule.from_diffusers(scheduler.config)
    np.testing.assert_allclose(schedule.alphas_cumprod, scheduler.alphas_cumprod.numpy(), rtol=2e-6)


def test_a_job_that_starts_late_is_first_order_there() -> None:
    sampler = build_sampler("dpmpp2m", 20, NoiseSchedule.linear())
    column = COLUMNS.index("c_1")
    assert torch.equal(sampler.first_coefficients[:, column], torch.zeros(20))
    assert (sampler.coefficients[1:-1, column] != 0).all()
    x = noise_batch([3], (1, 4, 4))
    junk = History(torch.full_like(x, 5.0), torch.full_like(x, 7.0))
    out = denoise(x, sampler.timesteps[9])
    late, _ = sampler.advance(9, x, out, junk, first=True)
    alone, _ = sampler.advance(9, x, out, History.empty(x), first=True)
    assert torch.equal(late, alone)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpmpp2m"])
def test_start_coefficients_are_a_unit_marginal(name: str) -> None:
    sampler = build_sampler(name, 50, NoiseSchedule.from_diffusers({}))
    torch.testing.assert_close(sampler.start_coefficients.square().sum(1), torch.ones(50))
    assert (sampler.start_coefficients[:, 0].diff() > 0).all()


def test_noise_is_needed_where_it_is_drawn_and_not_elsewhere() -> None:
    x = noise_batch(SEEDS, (1, 4, 4))
    schedule = NoiseSchedule.linear()
    with pytest.raises(CalibrationError, match="draws noise"):
        sample(denoise, build_sampler("ddpm", 4, schedule), x)
    with pytest.raises(CalibrationError, match="1 seeds for 2 samples"):
        sample(denoise, build_sampler("ddpm", 4, schedule), x, seeds=[1])
    sample(denoise, build_sampler("ddim", 4, schedule), x)


def test_a_seeds_noise_does_not_depend_on_its_batch() -> None:
    sampler = build_sampler("ddpm", 5, NoiseSchedule.linear())
    x = noise_batch([8, 9], (1, 4, 4))
    both = sample(denoise, sampler, x, seeds=[8, 9])
    assert torch.equal(both[1:], sample(denoise, sampler, x[1:], seeds=[9]))


@pytest.mark.parametrize(
    "setting",
    [
        {"prediction_type": "guess"},
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


@pytest.mark.parametrize(("name", "steps"), [("lms", 10), ("ddim", 0), ("dpmpp2m", 1001), ("flow-euler", 5)])
def test_unknown_samplers_and_step_counts_are_refused(name: str, steps: int) -> None:
    with pytest.raises(CalibrationError):
        build_sampler(name, steps, NoiseSchedule.from_diffusers({}))
