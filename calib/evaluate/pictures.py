"""The first few images of each way as 8-bit pixels: what a report shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from calib.errors import CalibrationError
from calib.sampling import to_pixels

SHOWN = 8
"""Images of each way that are kept for a report."""


def write_pictures(path: Path, images: Mapping[str, torch.Tensor]) -> None:
    """Keep the first images of each way.

    Args:
        path: of the file.
        images: by way, float32 ``[N, C, H, W]`` in [-1, 1].
    """
    save_file({name: to_pixels(some[:SHOWN]).contiguous() for name, some in images.items()}, path)


def read_pictures(path: Path) -> dict[str, torch.Tensor]:
    """uint8 ``[N, C, H, W]`` by way.

    Raises:
        CalibrationError: missing or damaged.
    """
    try:
        pictures: dict[str, torch.Tensor] = load(path.read_bytes())
    except (FileNotFoundError, SafetensorError) as error:
        raise CalibrationError(f"no pictures: {error}", where=str(path), mend="evaluate anew") from error
    return pictures
