"""The decoder of a latent pipeline: from what its denoiser makes to pictures, in floating point on the host.

A board runs the denoiser; the decoder is a network of its own, called once an image, and no part of a bundle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from calib.errors import ModelError
from calib.models import find_weights, load_network, read_json

KINDS = ("AutoencoderKL", "AutoencoderTiny")


class LatentDecoder(nn.Module):
    """A diffusers autoencoder's decoder.

    Args:
        autoencoder: in float32.
        scale: latents are divided by it before they are decoded.
        shift: then this is added.
    """

    def __init__(self, autoencoder: nn.Module, scale: float, shift: float) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.scale = scale
        self.shift = shift

    @torch.no_grad()
    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """float32 ``[N, C, H, W]`` as a sampler ends -> pictures float32 ``[N, 3, k*H, k*W]``, nominally in [-1, 1]."""
        autoencoder: Any = self.autoencoder
        pictures: torch.Tensor = autoencoder.decode(latents / self.scale + self.shift, return_dict=False)[0]
        return pictures


def load_decoder(pipeline: Path) -> LatentDecoder | None:
    """The decoder of a pipeline's folder; None where the pipeline has none, and its samples are the pictures.

    Raises:
        ModelError: an autoencoder that is pickled, damaged or of a kind that the kit does not know.
    """
    folder = pipeline / "vae"
    if not folder.is_dir():
        return None
    config = read_json(folder / "config.json")
    kind = config.get("_class_name")
    if kind not in KINDS:
        raise ModelError(
            f"autoencoder class {kind!r} is not supported", where=str(folder), mend=f"{', '.join(KINDS)} are"
        )
    variant, weights = find_weights(folder)
    autoencoder = load_network(str(kind), folder, variant, weights)
    scale, shift = config.get("scaling_factor"), config.get("shift_factor")
    if scale is None:
        scale = 0.18215 if kind == "AutoencoderKL" else 1.0  # diffusers' defaults
    return LatentDecoder(autoencoder, float(scale), float(shift or 0.0)).eval()
