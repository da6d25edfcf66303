"""The self-test that lowering makes: what the reference gives, and how near a device must come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from calib.noise import noise
from calib.samplers import History
from edge.lower.golden import golden_test
from edge.tolerance import LEAST_DB, MARGIN_DB, WANTED_DB, least_agreement

if TYPE_CHECKING:
    from tests.lower.conftest import Case


def test_golden_output_is_the_references_last_steps(odd_case: Case) -> None:
    shape = odd_case.model.sample_shape
    golden, data = golden_test(9, odd_case.model, odd_case.modulated, odd_case.sampler)
    assert (golden.start, golden.image, golden.exact) == (3, "zeros", False)
    assert LEAST_DB <= golden.min_psnr_db <= WANTED_DB
    alpha_sigma = odd_case.sampler.start_coefficients[3]
    x = alpha_sigma[1] * torch.from_numpy(noise(9, shape))[None]
    before = History.empty(x)
    odd_case.modulated.reset()
    for i in range(3, 6):
        odd_case.modulated.set_step(i)
        out = odd_case.modulated(x, odd_case.sampler.timesteps[i])
        x, before = odd_case.sampler.advance(i, x, out, before, first=i == 3)
    assert np.array_equal(np.frombuffer(data, "<f4").reshape(x.shape), x.numpy())


def test_a_noisier_model_asks_less_of_its_board() -> None:
    assert least_agreement(float("inf")) == least_agreement(90) == WANTED_DB
    assert least_agreement(55) == 55 - MARGIN_DB
    assert least_agreement(10) == LEAST_DB
