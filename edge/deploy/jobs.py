"""The jobs that a deployment runs, from its options: seeds to generate, pictures to inspect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from calib.demo.textures import inspection_images
from edge.deploy.conditions import wanted_conditions
from edge.deploy.stream import Job
from edge.errors import JobInputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from calib.adapters import PretrainedModel
    from edge.deploy.options import DeployOptions

MAX_PICTURE_BYTES = 64 << 20
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
