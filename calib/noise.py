"""Gaussian noise from a seed, the same on every machine: Philox4x64-10 and Box-Muller.

``torch.randn`` promises nothing across versions or machines; a job's seed must mean one image everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from calib.errors import CalibrationError

if TYPE_CHECKING:
    import numpy.typing as npt


def noise(seed: int, shape: Sequence[int], draw: int = 0) -> npt.NDArray[np.float32]:
    """Standard normal noise.

    The raw stream is numpy's ``Philox(key=(seed, draw))`` (Salmon et al., 2011). Each 64-bit word becomes a double
    ``u = ((word >> 11) + 0.5) * 2^-53`` in (0, 1); each pair of them a pair of normals (Box and Muller, 1958).

    Args:
        seed: 0 .. 2^64 - 1.
        shape: of the result.
        draw: 0 for the noise that a job starts from, ``i + 1`` for what step ``i`` adds.

    Raises:
        CalibrationError: a seed outside that range.
    """
    if not 0 <= seed < 2**64:
        raise CalibrationError(f"seed {seed} out of range", mend="use 0 .. 2^64 - 1")
    count = math.prod(shape)
    words = np.random.Philox(key=np.array([seed, draw], dtype=np.uint64)).random_raw(count + count % 2)
    uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log(uniform[::2])), 2 * np.pi * uniform[1::2]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return pairs.reshape(-1)[:count].astype(np.float32).reshape(tuple(shape))


def noise_batch(seeds: Iterable[int], shape: Sequence[int], draw: int = 0) -> torch.Tensor:
    """``noise`` of several seeds, stacked: float32 ``[len(seeds), *shape]``."""
    return torch.from_numpy(np.stack([noise(seed, shape, draw) for seed in seeds]))
