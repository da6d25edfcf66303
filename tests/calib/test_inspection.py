"""Anomaly map, score, and the start of an inspection."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from calib.errors import CalibrationError
from calib.inspection import anomaly_map, anomaly_score
from calib.noise import noise_batch
from calib.samplers import NoiseSchedule, build_sampler
from calib.sampling import sample, start_generation, start_inspection, to_float, to_pixels


def brute_force(image: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    difference = np.abs(image - reconstruction).mean(0)
    height, width = difference.shape
    result = np.empty_like(difference)
    for y in range(height):
        for x in range(width):
            total = 0.0
            for dy in range(-2, 3):
                for dx in range(-2, 3):
                    total += difference[np.clip(y + dy, 0, height - 1), np.clip(x + dx, 0, width - 1)]
            result[y, x] = total / 25
    return result


def test_the_map_is_a_box_mean_clamped_to_the_edge() -> None:
    rng = np.random.default_rng(0)
    image, reconstruction = rng.uniform(-1, 1, (2, 3, 9, 7)).astype(np.float32)
    found = anomaly_map(image, reconstruction)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, brute_force(image, reconstruction), rtol=1e-6)
    assert anomaly_score(found) == found.max()


def test_other_shapes_are_refused() -> None:
    with pytest.raises(CalibrationError):
        anomaly_map(np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32))
    with pytest.raises(CalibrationError):
        anomaly_map(np.zeros((1, 4, 4), np.float32), np.zeros((1, 4, 5), np.float32))


def test_pixels_go_there_and_back() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    as_float = to_float(every)
    assert as_float.dtype == np.float32
    assert (as_float.min(), as_float.max()) == (-1, 1)
    assert np.array_equal(to_pixels(torch.from_numpy(as_float)).numpy(), every)


def test_an_inspection_starts_at_the_marginal_of_its_step_and_a_perfect_denoiser_gives_the_image_back() -> None:
    sampler = build_sampler("ddim", 20, NoiseSchedule.from_diffusers({}))
    image = torch.from_numpy(to_float(np.random.default_rng(1).integers(0, 256, (1, 1, 8, 8), np.uint8)))
    noise = noise_batch([4], (1, 8, 8))
    x = start_inspection(sampler, image, noise, 7)
    alpha, sigma = sampler.start_coefficients[7]
    assert torch.equal(x, alpha * image + sigma * noise)
    seen: list[int] = []
    back = sample(lambda *_: noise, sampler, x, start=7, on_step=lambda i, _: seen.append(i))
    torch.testing.assert_close(back, image, atol=2e-4, rtol=0)
    assert seen == list(range(7, 20))


@pytest.mark.parametrize("start", [-1, 20])
def test_a_start_that_does_not_exist_is_refused(start: int) -> None:
    sampler = build_sampler("ddim", 20, NoiseSchedule.from_diffusers({}))
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(CalibrationError):
        start_inspection(sampler, x, x, start)
    with pytest.raises(CalibrationError):
        sample(lambda x, _: x, sampler, x, start=start)
    with pytest.raises(CalibrationError):
        start_inspection(sampler, x, torch.zeros(1, 1, 2, 3), 0)


def test_generation_starts_from_scaled_noise() -> None:
    sampler = build_sampler("dpmpp2m", 20, NoiseSchedule.from_diffusers({}))
    noise = noise_batch([4], (1, 8, 8))
    assert torch.equal(start_generation(sampler, noise), noise)
