"""The pictures a deployment leaves behind: generated images beside FP32, inspections with their anomaly map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageOps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

ZOOM = 3
GAP = 8
LABEL_HEIGHT = 16
FULL_SCALE_ANOMALY = 0.5
"""Anomaly (in units of an image that spans 2.0) that is drawn white-hot."""


def to_picture(image: NDArray[np.float32]) -> Image.Image:
    """float32 [C, H, W] in [-1, 1] to an 8-bit picture; with other than 1 or 3 channels, the first one as grey."""
    image = image if image.shape[0] == 3 else image[:1]
    pixels = np.rint((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8)
    return Image.fromarray(pixels[0] if pixels.shape[0] == 1 else pixels.transpose(1, 2, 0))


def to_heat(anomaly_map: NDArray[np.float32]) -> Image.Image:
    """float32 [H, W] >= 0 to a black, orange, white heat picture."""
    share = np.clip(anomaly_map / FULL_SCALE_ANOMALY, 0, 1)
    grey = Image.fromarray(np.rint(share * 255).astype(np.uint8))
    return ImageOps.colorize(grey, black="black", mid="darkorange", white="white")


def panel(rows: Sequence[Sequence[tuple[str, Image.Image]]], path: Path) -> None:
    """Write rows of labelled pictures, enlarged without smoothing, as one PNG."""
    width = max(picture.width for row in rows for _, picture in row) * ZOOM
    height = max(picture.height for row in rows for _, picture in row) * ZOOM
    columns = max(len(row) for row in rows)
    size = (columns * (width + GAP) + GAP, len(rows) * (height + LABEL_HEIGHT + GAP) + GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for row_index, row in enumerate(rows):
        top = GAP + row_index * (height + LABEL_HEIGHT + GAP)
        for column, (label, picture) in enumerate(row):
            left = GAP + column * (width + GAP)
            draw.text((left, top), label, fill="black")
            large = picture.resize((picture.width * ZOOM, picture.height * ZOOM), Image.Resampling.NEAREST)
            sheet.paste(large.convert("RGB"), (left, top + LABEL_HEIGHT))
    sheet.save(path)
