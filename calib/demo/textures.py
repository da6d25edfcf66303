"""The demo model's data: grey 64x64 crops of three CC0 surface photographs.

The photographs (brick, gravel, grass; from ambientCG and texturehaven, CC0) ship inside the
``scikit-image`` wheel, so nothing is downloaded. Each is halved to 256x256, which puts a few
bricks or stones into one crop. The right quarter of every photograph is held out: training
never sees it, inspection jobs and evaluation use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw
from skimage import data as skimage_data

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE: Final = 64
SURFACES: Final = ("brick", "gravel", "grass")
HALVED_SIDE: Final = 256
TRAIN_COLUMNS: Final = 192


@dataclass(frozen=True)
class Surfaces:
    """The three photographs, split by column into a part to train on and a part held out.

    ``train``: uint8 [3, 256, 192]; ``held_out``: uint8 [3, 256, 64].
    """

    train: NDArray[np.uint8]
    held_out: NDArray[np.uint8]


def load_surfaces() -> Surfaces:
    """Read the photographs from the scikit-image wheel, halve and split them."""
    halves = []
    for name in SURFACES:
        photograph = Image.fromarray(getattr(skimage_data, name)())
        halves.append(np.asarray(photograph.resize((HALVED_SIDE, HALVED_SIDE), Image.Resampling.LANCZOS)))
    whole = np.stack(halves)
    return Surfaces(train=whole[:, :, :TRAIN_COLUMNS], held_out=whole[:, :, TRAIN_COLUMNS:])


def random_crops(images: NDArray[np.uint8], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw ``count`` crops with random place and mirroring; float32 [count, 1, 64, 64] in [-1, 1]."""
    surfaces, height, width = images.shape
    crops = np.empty((count, 1, SIDE, SIDE), np.float32)
    for index in range(count):
        top = int(rng.integers(0, height - SIDE + 1))
        left = int(rng.integers(0, width - SIDE + 1))
        crop = images[int(rng.integers(surfaces)), top : top + SIDE, left : left + SIDE]
        if rng.integers(2):
            crop = crop[:, ::-1]
        if rng.integers(2):
            crop = crop[::-1]
        crops[index, 0] = crop
    return crops / np.float32(127.5) - np.float32(1)


def reference_images(count: int = 96) -> NDArray[np.float32]:
    """Crops of the training part, what inspected images are compared with; float32 [count, 1, 64, 64] in [-1, 1]."""
    return random_crops(load_surfaces().train, count, np.random.default_rng(0))


def inspection_images() -> dict[str, NDArray[np.uint8]]:
    """Two held-out crops to inspect, uint8 [1, 64, 64]: bricks as they are, and with a scratch drawn over them."""
    clean = load_surfaces().held_out[SURFACES.index("brick"), 96 : 96 + SIDE]
    scratched = Image.fromarray(clean.copy())
    ImageDraw.Draw(scratched).line([(14, 44), (30, 36), (47, 31)], fill=235, width=2)
    return {"brick": clean[None].copy(), "brick-scratched": np.asarray(scratched)[None].copy()}
