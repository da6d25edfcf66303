"""Noise is a definition: every machine and language gives these numbers."""

from __future__ import annotations

import numpy as np
import pytest

from calib.errors import CalibrationError
from calib.noise import noise, noise_batch

GOLDEN_WORDS = [213000021201967259, 4455796210202625458]
GOLDEN_NOISE = [0.15853384137153625, 2.982879400253296, -1.9256919622421265, -0.8249255418777466]


def test_the_definition_word_by_word() -> None:
    words = [int(word) for word in np.random.Philox(key=5).random_raw(4)]
    uniform = [((word >> 11) + 0.5) / 2**53 for word in words]
    expected = []
    for first, second in (uniform[:2], uniform[2:]):
        radius = np.sqrt(-2 * np.log(first))
        expected += [radius * np.cos(2 * np.pi * second), radius * np.sin(2 * np.pi * second)]
    np.testing.assert_array_equal(noise(5, (4,)), np.array(expected, dtype=np.float32))


def test_golden_values() -> None:
    """The raw stream of Philox4x64-10 with key (0, 0), and the noise it makes: what the C++ must print."""
    assert [int(word) for word in np.random.Philox(key=0).random_raw(2)] == GOLDEN_WORDS
    np.testing.assert_allclose(noise(0, (4,)), GOLDEN_NOISE, rtol=3e-7)


def test_shapes_share_one_stream() -> None:
    whole = noise(2**64 - 1, (3, 5))
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole.reshape(-1)[:7], noise(2**64 - 1, (7,)))
    np.testing.assert_array_equal(noise_batch([8, 9], (2, 3))[1].numpy(), noise(9, (2, 3)))


def test_it_is_standard_normal() -> None:
    many = noise(1, (200_000,)).astype(np.float64)
    assert abs(many.mean()) < 0.01
    assert abs(many.std() - 1) < 0.01
    assert abs((many**4).mean() - 3) < 0.1
    assert abs(np.corrcoef(many[::2], many[1::2])[0, 1]) < 0.01


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_outside_64_bits_are_refused(seed: int) -> None:
    with pytest.raises(CalibrationError):
        noise(seed, (2,))
