"""Novelty: what inspected images may look like, and what is flagged."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from calib.calibration import CalibrationConfig, calibrate, calibration_key
from calib.demo.textures import inspection_images, load_surfaces, random_crops, reference_images
from calib.errors import CalibrationError
from calib.models import load_model
from calib.novelty import NoveltyTable, image_statistics, novelty_table
from calib.samplers import build_sampler
from calib.sampling import to_float
from calib.storage import load_calibration, save_calibration


@pytest.fixture(scope="module")
def demo() -> NoveltyTable:
    table = novelty_table(torch.from_numpy(reference_images()))
    assert table is not None
    return table


@pytest.fixture(scope="module")
def brick() -> np.ndarray:
    return to_float(inspection_images()["brick"])


def test_held_out_pictures_pass_with_and_without_a_scratch(demo: NoveltyTable, brick: np.ndarray) -> None:
    scratched = to_float(inspection_images()["brick-scratched"])
    held_out = random_crops(load_surfaces().held_out, 200, np.random.default_rng(1))
    assert max(demo.novelty(image) for image in (brick, scratched)) < 1
    assert sum(demo.novelty(image) > 1 for image in held_out) <= 10


@pytest.mark.parametrize("level", [-1.0, -0.13, 0.0, 1.0])
def test_a_constant_picture_is_flagged(demo: NoveltyTable, brick: np.ndarray, level: float) -> None:
    assert demo.novelty(np.full_like(brick, level)) > 10


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_flagged(demo: NoveltyTable, brick: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    uniform = rng.uniform(-1, 1, brick.shape).astype(np.float32)
    gaussian = rng.normal(0, 0.5, brick.shape).clip(-1, 1).astype(np.float32)
    assert min(demo.novelty(uniform), demo.novelty(gaussian)) > 1.5


def test_bricks_are_flagged_inverted_brighter_darker_pale_and_half_covered(
    demo: NoveltyTable, brick: np.ndarray
) -> None:
    covered = brick.copy()
    covered[:, 32:] = -1
    others = {
        "inverted": -brick,
        "brighter": (brick + 0.5).clip(-1, 1),
        "darker": (brick - 0.5).clip(-1, 1),
        "pale": 0.3 * brick,
        "covered": covered,
    }
    assert {name for name, image in others.items() if demo.novelty(image.astype(np.float32)) > 1} == set(others)


@pytest.mark.parametrize(("shape", "scales"), [((1, 64, 64), 4), ((3, 9, 7), 2), ((2, 1, 21), 3), ((5, 1, 1), 0)])
def test_statistics_are_means_and_log_variances_of_halved_planes(shape: tuple[int, ...], scales: int) -> None:
    image = np.random.default_rng(3).uniform(-1, 1, shape).astype(np.float32)
    wanted = []
    for plane in image.astype(np.float64):
        wanted.append(plane.mean())
        for _ in range(scales):
            wanted.append(np.log(plane.var() + 1e-5))
            high, wide = max(1, plane.shape[0] // 2), max(1, plane.shape[1] // 2)
            tall, broad = min(2, plane.shape[0]), min(2, plane.shape[1])
            plane = plane[: high * tall, : wide * broad].reshape(high, tall, wide, broad).mean((1, 3))  # noqa: PLW2901
    np.testing.assert_allclose(image_statistics(image[None])[0], wanted, rtol=1e-12)


def test_what_never_varied_may_still_vary_a_little() -> None:
    table = novelty_table(torch.full((8, 1, 4, 4), 0.25))
    assert table is not None
    assert table.novelty(np.full((1, 4, 4), 0.25, np.float32)) == pytest.approx(0, abs=1e-6)


def test_too_few_or_broken_references_give_no_table() -> None:
    assert novelty_table(torch.randn(7, 1, 8, 8)) is None
    assert novelty_table(torch.full((8, 1, 8, 8), float("nan"))) is None


def test_another_shape_is_refused(demo: NoveltyTable) -> None:
    with pytest.raises(CalibrationError, match="shape"):
        demo.novelty(np.zeros((3, 64, 64), np.float32))


def test_calibration_learns_it_and_keeps_it(tiny_model_folder: Path, tmp_path: Path) -> None:
    tiny_model = load_model(tiny_model_folder)
    sampler = build_sampler("ddim", 4, tiny_model.schedule)
    config = CalibrationConfig(seeds=8, batch=4)
    generated = calibrate(tiny_model, sampler, config)
    save_calibration(generated, tmp_path)
    again = load_calibration(tmp_path)
    assert generated.novelty is not None
    assert again.novelty is not None
    assert torch.equal(again.novelty.whitening, generated.novelty.whitening)
    assert torch.equal(again.novelty.mean, generated.novelty.mean)
    pictures = torch.rand(16, *tiny_model.sample_shape, generator=torch.Generator().manual_seed(0))
    shown = dataclasses.replace(tiny_model, references=pictures)
    assert calibration_key(shown, sampler, config) != calibration_key(tiny_model, sampler, config)
    given = calibrate(shown, sampler, config).novelty
    wanted = novelty_table(pictures)
    assert given is not None
    assert wanted is not None
    assert torch.equal(given.mean, wanted.mean)
