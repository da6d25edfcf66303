"""How sure a mean is: bootstrap for image-by-image numbers, jackknife for numbers of a whole set."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

BOOTSTRAP_SEED = 2026
DRAWS = 2000
CONFIDENCE = 0.95
NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% confidence interval.

    Attributes:
        mean: the estimate.
        low, high: ends of the interval; both the estimate where it cannot be told (one image).
    """

    mean: float
    low: float
    high: float


def bootstrap(values: torch.Tensor) -> Interval:
    """Mean of one number an image, percentile bootstrap over the images (Efron, 1979), seeded.

    Args:
        values: float64 ``[N]``; infinite ones make the whole interval infinite.
    """
    found = values.double().numpy()
    mean = float(found.mean())
    if len(found) < 2 or not math.isfinite(mean):
        return Interval(mean, mean, mean)
    draws = np.random.default_rng(BOOTSTRAP_SEED).integers(0, len(found), (DRAWS, len(found)))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(found[draws].mean(1), [tail, 100 - tail])
    return Interval(mean, float(low), float(high))


def jackknife(count: int, statistic: Callable[[torch.Tensor], float]) -> Interval:
    """A number of a whole set, with the normal interval of the delete-one jackknife (Tukey, 1958).

    A bootstrap draws images twice, which a distance between distributions takes for structure; leaving one out
    does not.

    Args:
        count: size of the set.
        statistic: of the members at these indices.
    """
    everyone = torch.arange(count)
    estimate = statistic(everyone)
    if count < 3:
        return Interval(estimate, estimate, estimate)
    parts = np.array([statistic(everyone[everyone != left_out]) for left_out in range(count)])
    error = math.sqrt((count - 1) / count * float(((parts - parts.mean()) ** 2).sum()))
    return Interval(estimate, estimate - NORMAL_95 * error, estimate + NORMAL_95 * error)
