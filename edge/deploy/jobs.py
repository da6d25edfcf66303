"""The jobs that a deployment runs, from its options: seeds to generate, pictures to inspect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from calib.demo.textures import inspection_images
from calib.novelty import LEAST_REFERENCES
from calib.sampling import to_float
from edge.deploy.conditions import wanted_conditions
from edge.deploy.stream import Job
from edge.errors import JobInputError
from firmware_bridge.commands.payload import PICTURES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from calib.adapters import PretrainedModel
    from edge.deploy.options import DeployOptions

MAX_PICTURE_BYTES = 64 << 20
MAX_REFERENCES = 1024
INSPECTION_SEED = 7


def wanted_jobs(options: DeployOptions, model: PretrainedModel, steps: int) -> list[Job]:
    """Checked before the board is touched.

    Args:
        options: seeds, pictures and conditions.
        model: gives the images' shape and what it is conditioned on.
        steps: of the sampler.

    Raises:
        JobInputError: a picture that is missing, unreadable or of another size than the model's; a condition that the
            model does not take.
    """
    shape, conditions = model.sample_shape, wanted_conditions(options.conditions, model)
    jobs = [Job(f"generate {seed}", seed, conditions=conditions) for seed in options.seeds]
    if options.images:
        images = [(path.stem, read_picture(path, shape)) for path in options.images]
    else:
        images = list(inspection_images().items()) if options.model is None else []
    start = options.inspect_start(steps)
    return jobs + [Job(f"inspect {name}", INSPECTION_SEED, start, image, conditions) for name, image in images]


def read_references(folder: Path, shape: tuple[int, int, int]) -> torch.Tensor:
    """Every picture of a folder, float32 [K, C, H, W] in [-1, 1], in the order of their names.

    Raises:
        JobInputError: too few or too many of them, or one that ``read_picture`` refuses.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURES)
    if not LEAST_REFERENCES <= len(files) <= MAX_REFERENCES:
        raise JobInputError(
            f"{len(files)} pictures ({', '.join(sorted(PICTURES))})",
            where=str(folder),
            mend=f"give {LEAST_REFERENCES} to {MAX_REFERENCES} pictures of good parts; 64 are plenty",
        )
    return torch.from_numpy(np.stack([to_float(read_picture(path, shape)) for path in files]))


def read_picture(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A picture file as uint8 [C, H, W] of exactly the model's shape; grey for C = 1, RGB for C = 3."""
    channels, height, width = shape
    if channels not in {1, 3}:
        raise JobInputError(
            f"the model's samples have {channels} channels", where=str(path), mend="no picture has that"
        )
    try:
        if path.stat().st_size > MAX_PICTURE_BYTES:
            raise JobInputError(f"over {MAX_PICTURE_BYTES} bytes", where=str(path))
        with Image.open(path) as picture:
            if picture.size != (width, height):
                raise JobInputError(
                    f"{picture.width}x{picture.height} pixels, the model takes {width}x{height}",
                    where=str(path),
                    mend="crop or scale the picture",
                )
            pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    except (FileNotFoundError, UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
        raise JobInputError(f"not a readable picture: {error}", where=str(path)) from error
    return pixels[None].copy() if channels == 1 else pixels.transpose(2, 0, 1).copy()
