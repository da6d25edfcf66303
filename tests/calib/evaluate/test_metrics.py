"""Image metrics, intervals and set distances against what they are defined as."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from calib.errors import CalibrationError
from calib.evaluate.features import FeatureNetwork, distances, frechet, kernel
from calib.evaluate.intervals import bootstrap, jackknife
from calib.evaluate.metrics import pixels_within, psnr, ssim


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_clamps_and_compares_each_image() -> None:
    a = torch.zeros(3, 1, 2, 2)
    b = a.clone()
    b[1] = 0.2
    b[2] = 7.0
    found = psnr(a, b)
    assert found[0] == float("inf")
    torch.testing.assert_close(found[1:], torch.tensor([20.0, 10 * 0.6020599913]).double(), rtol=1e-6, atol=0)


def test_ssim_falls_with_noise_and_knows_small_and_flat_samples() -> None:
    a = random(2, 3, 16, 16).clamp(-1, 1)
    near, far = ssim(a, a + 0.02 * random(2, 3, 16, 16, seed=1)), ssim(a, random(2, 3, 16, 16, seed=2))
    assert torch.equal(ssim(a, a), torch.ones(2).double())
    assert (near > 0.99).all()
    assert (far < 0.2).all()
    row = random(1, 1, 1, 32)
    assert ssim(row, row) == 1
    assert torch.isnan(ssim(row[..., :2], row[..., :2])).all()


def test_pixels_are_counted_after_rounding_to_eight_bits() -> None:
    a = torch.full((1, 1, 1, 4), -1.0)
    b = a + torch.tensor([0.0, 1 / 127.5, 2 / 127.5, 1.0])
    assert pixels_within(a, b, 0) == 0.25
    assert pixels_within(a, b, 1) == 0.5


def test_bootstrap_covers_and_repeats() -> None:
    values = 3 + random(200).double()
    found = bootstrap(values)
    assert found == bootstrap(values)
    assert found.low < float(values.mean()) == found.mean < found.high
    half, normal = (found.high - found.low) / 2, 1.96 / math.sqrt(200)
    assert half == pytest.approx(normal * float(values.std()), rel=0.1)
    infinite = bootstrap(torch.tensor([1.0, math.inf]))
    assert infinite.mean == infinite.low == infinite.high == math.inf
    assert bootstrap(values[:1]).low == float(values[0])


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = random(50).double()
    found = jackknife(50, lambda chosen: float(values[chosen].mean()))
    assert found.mean == pytest.approx(float(values.mean()))
    assert (found.high - found.mean) == pytest.approx(1.96 * float(values.std()) / math.sqrt(50), rel=1e-3)


def test_the_frechet_distance_is_that_of_the_gaussians() -> None:
    a, b = random(400, 5).double(), 1.5 * random(300, 5, seed=1).double() + 0.3
    covariances = [np.cov(x.numpy().T) for x in (a, b)]
    roots = np.linalg.eigvals(covariances[0] @ covariances[1])
    wanted = float((a.mean(0) - b.mean(0)).square().sum()) + float(np.trace(covariances[0] + covariances[1]))
    wanted -= 2 * float(np.sqrt(roots.real).sum())
    assert frechet(a, b) == pytest.approx(wanted, rel=1e-6)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_the_kernel_distance_has_no_bias() -> None:
    same = [kernel(random(12, 4, seed=k).double(), random(20, 4, seed=1000 + k).double()) for k in range(300)]
    assert abs(float(np.mean(same))) < 3 * float(np.std(same)) / math.sqrt(300)
    assert kernel(random(12, 4).double(), random(20, 4, seed=1).double() + 1) > 1


def test_the_named_network_runs_offline_and_tells_pictures_apart() -> None:
    network = FeatureNetwork()
    ramp = torch.linspace(-1, 1, 32).expand(6, 1, 32, 32)
    pictures = ramp + 0.05 * random(6, 1, 32, 32)
    features = network(pictures)
    assert features.shape == (6, 1280)
    assert torch.equal(features, network(pictures.expand(-1, 3, -1, -1)))
    noise = network(random(6, 1, 32, 32, seed=1))
    near = distances(network(pictures + 0.01 * random(6, 1, 32, 32, seed=2)), features, paired=True)
    far = distances(noise, features, paired=True)
    assert near.frechet.mean < far.frechet.low
    assert near.kernel.mean < far.kernel.low
    with pytest.raises(CalibrationError, match="4 channels"):
        network(torch.zeros(1, 4, 8, 8))
