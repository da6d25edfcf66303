"""How unlike an inspected image is to what calibration saw: one number, 1 at the limit.

An image is described by each channel's mean and, at up to four scales, the logarithm of its variance. Reference
images give these statistics a mean and a covariance; the novelty of another image is its squared Mahalanobis distance
from them, in units of a limit that the references themselves give. That finds what a camera, a lamp or a cable does
wrong: another polarity, brightness or contrast, no picture at all, noise. It does not look for defects: the anomaly map
does that.
``edge/engine/image/novelty.cpp`` computes the same on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from calib.errors import CalibrationError

if TYPE_CHECKING:
    import numpy.typing as npt

SCALES: Final = 4
LEAST_PIXELS: Final = 4
"""A smaller plane has no scale of its own."""
VARIANCE_FLOOR: Final = 1e-5
"""Added to each variance: a flat plane's logarithm is finite; about the rounding of 8-bit pixels."""
LEAST_REFERENCES: Final = 8
SHRINKAGE: Final = 0.1
"""Share of the covariance's off-diagonal that is taken away: there may be fewer references than statistics."""
LEAST_DEVIATION: Final = 0.01
"""Of any statistic over the references: what never varied there may still vary a little."""
LEAST_MARGIN: Final = 3.0
MARGIN_REFERENCES: Final = 48.0


@dataclass(frozen=True)
class NoveltyTable:
    """What the references look like: ``novelty = |whitening @ (statistics - mean)|^2``.

    Attributes:
        mean: float32 [F], F statistics.
        whitening: float32 [F, F], lower triangular.
    """

    mean: torch.Tensor
    whitening: torch.Tensor

    def novelty(self, image: npt.NDArray[np.float32]) -> float:
        """Of one image, float32 [C, H, W]: at least 0; above 1 it is unlike the references.

        Raises:
            CalibrationError: an image of another shape than the references.
        """
        found = image_statistics(image[None])[0]
        if found.shape != self.mean.shape:
            raise CalibrationError(f"image {image.shape}", where="novelty", mend="use an image of the model's shape")
        distance = self.whitening.double().numpy() @ (found - self.mean.double().numpy())
        return float(distance @ distance)


def image_statistics(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The statistics of each image.

    Args:
        images: [N, C, H, W], nominally in [-1, 1].

    Returns:
        float64 [N, C * (1 + scales)]: for each channel its mean, then ``log(variance + 1e-5)`` of the plane and of the
        planes of its 2x2 means, at most four and each of at least four pixels. A side of one stays; of an odd side
        the last row or column is left out.
    """
    plane = images.astype(np.float64)
    found = [plane.mean((2, 3))]
    while len(found) <= SCALES and plane.shape[2] * plane.shape[3] >= LEAST_PIXELS:
        found.append(np.log(plane.var((2, 3)) + VARIANCE_FLOOR))
        plane = _halve(_halve(plane, 2), 3)
    return np.stack(found, axis=2).reshape(len(images), -1)


def _halve(plane: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
    """Means of pairs along an axis."""
    pairs = plane.shape[axis] // 2
    if pairs == 0:
        return plane
    first, second = (np.take(plane, range(start, 2 * pairs, 2), axis) for start in (0, 1))
    return (first + second) * 0.5


def novelty_table(references: torch.Tensor) -> NoveltyTable | None:
    """Learn what images look like.

    The limit is the largest distance of a reference from the others (at least the F that F statistics have on average),
    times 3, or times 48/N where N, the number of references, is below 16: the fewer there are, the likelier the next
    one is farther out than all of them.

    Args:
        references: float32 [N, C, H, W].

    Returns:
        None for fewer than 8 references, or where one is not finite.
    """
    count = len(references)
    if count < LEAST_REFERENCES or not bool(torch.isfinite(references).all()):
        return None
    seen = torch.from_numpy(image_statistics(references.numpy()))
    others = [torch.cat([seen[:i], seen[i + 1 :]]) for i in range(count)]
    distances = [_whitening(other) @ (seen[i] - other.mean(0)) for i, other in enumerate(others)]
    farthest = max(float(distance.square().sum()) for distance in distances)
    limit = max(farthest, seen.shape[1]) * max(LEAST_MARGIN, MARGIN_REFERENCES / count)
    return NoveltyTable(seen.mean(0).float(), (_whitening(seen) / limit**0.5).float().contiguous())


def _whitening(seen: torch.Tensor) -> torch.Tensor:
    """float64 [F, F], of statistics [N, F]: makes their shrunken covariance the identity."""
    covariance = torch.cov(seen.T, correction=1).reshape(seen.shape[1], seen.shape[1])
    spread = covariance.diagonal().diag()
    floor = LEAST_DEVIATION**2 * torch.eye(len(covariance), dtype=covariance.dtype)
    whitening: torch.Tensor = torch.linalg.inv(torch.linalg.cholesky(covariance.lerp(spread, SHRINKAGE) + floor))
    return whitening
