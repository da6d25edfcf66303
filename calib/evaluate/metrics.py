"""How near images come to others, image by image."""

from __future__ import annotations

import torch
from skimage.metrics import structural_similarity

from calib.sampling import to_pixels

PEAK = 2.0
SSIM_WINDOW = 7


def psnr(a: torch.Tensor, b: torch.Tensor, peak: float = PEAK) -> torch.Tensor:
    """Peak signal-to-noise ratio of each batch entry, both clamped to [-1, 1] first.

    Args:
        a: float32 ``[N, ...]``.
        b: the same.
        peak: of the signal; 2 for images in [-1, 1].

    Returns:
        float64 ``[N]``, dB; infinite where they are equal.
    """
    error = (a.clamp(-1, 1).double() - b.clamp(-1, 1).double()).square().flatten(1).mean(1)
    return 10 * torch.log10(peak**2 / error)


def ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Structural similarity of each batch entry (Wang et al., 2004), uniform window of 7 pixels or what fits.

    Args:
        a: float32 ``[N, C, H, W]``, clamped to [-1, 1] first.
        b: the same.

    Returns:
        float64 ``[N]``, 1 where they are equal.
    """
    window = min(SSIM_WINDOW, a.shape[-1], a.shape[-2])
    if a.shape[-2] < 3:  # a row of values: the window is one-dimensional
        a, b = a.flatten(2), b.flatten(2)
        window = min(SSIM_WINDOW, a.shape[-1])
    window -= 1 - window % 2
    if window < 3:
        return torch.full((len(a),), torch.nan, dtype=torch.float64)
    pairs = zip(a.clamp(-1, 1).double().numpy(), b.clamp(-1, 1).double().numpy(), strict=True)
    found = [structural_similarity(x, y, win_size=window, data_range=PEAK, channel_axis=0) for x, y in pairs]
    return torch.tensor(found, dtype=torch.float64)


def pixels_within(a: torch.Tensor, b: torch.Tensor, levels: int) -> torch.Tensor:
    """Share of the 8-bit pixels of each batch entry that differ by at most ``levels``: float64 ``[N]``."""
    apart = (to_pixels(a).to(torch.int16) - to_pixels(b).to(torch.int16)).abs()
    return (apart <= levels).double().flatten(1).mean(1)
