"""Real images to measure distances to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from calib.demo.textures import SIDE, load_surfaces, random_crops
from calib.errors import CalibrationError
from calib.sampling import to_float

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
MODES = {1: "L", 3: "RGB"}
CROP_SEED = 2026


def demo_images(count: int, shape: tuple[int, int, int]) -> torch.Tensor | None:
    """Crops of the photographs' quarter that the demo model was not trained on; None for another shape.

    Returns:
        float32 ``[count, 1, 64, 64]`` in [-1, 1].
    """
    if shape != (1, SIDE, SIDE):
        return None
    crops = random_crops(load_surfaces().held_out, count, np.random.default_rng(CROP_SEED))
    return torch.from_numpy(crops)


def folder_images(folder: Path, count: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """The first ``count`` images of a folder by name, cut to the middle square and resized.

    Args:
        folder: with image files.
        count: at most so many.
        shape: (C, H, W) of the model's samples, C 1 or 3.

    Returns:
        float32 ``[N, C, H, W]`` in [-1, 1].

    Raises:
        CalibrationError: no such folder, fewer than two images, or channels that are no picture.
    """
    channels, height, width = shape
    if channels not in MODES:
        raise CalibrationError(f"{channels} channels are no picture", where="--real")
    if not folder.is_dir():
        raise CalibrationError("no such folder", where=str(folder), mend="give a folder of images")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)[:count]
    if len(paths) < 2:
        raise CalibrationError(f"{len(paths)} images", where=str(folder), mend="put at least two there")
    images = []
    for path in paths:
        with Image.open(path) as opened:
            picture = opened.convert(MODES[channels])
        side = min(picture.width / width, picture.height / height)
        left, top = (picture.width - side * width) / 2, (picture.height - side * height) / 2
        box = (left, top, left + side * width, top + side * height)
        resized = picture.resize((width, height), Image.Resampling.LANCZOS, box=box)
        images.append(np.asarray(resized).reshape(height, width, channels).transpose(2, 0, 1))
    return torch.from_numpy(to_float(np.stack(images)))
