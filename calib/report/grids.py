"""Image strips as inline PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from calib.evaluate.result import Evaluation, Row

if TYPE_CHECKING:
    import torch

Pixels = npt.NDArray[np.uint8]

GAP = 2
ERROR_GAIN = 16
"""Levels of an error strip for one level of difference, so that a few of them are seen."""


@dataclass(frozen=True)
class Strip:
    """A row of images with its label.

    Attributes:
        label: name of the way.
        note: what to say beside it.
        images: data URI of a PNG: the images side by side.
        errors: the same of their differences to the float model's, grey where there is none; None for the float model.
        width, height: pixels of either.
    """

    label: str
    note: str
    images: str
    errors: str | None
    width: int
    height: int


def strips(result: Evaluation, pictures: Mapping[str, torch.Tensor]) -> list[Strip]:
    """The ways that a person should see side by side, the float model first.

    Only ways with the evaluation's own sampler have errors shown: others make another image on purpose.
    """
    if next(iter(pictures.values())).shape[1] not in {1, 3}:
        return []
    rows = {row.name: row for row in result.rows}
    shown = [_strip(rows[name], pictures, pictures.get("FP32")) for name in _worth_seeing(result) if name in pictures]
    if "real" in pictures:
        real = pictures["real"]
        shown.append(Strip("real images", "held out", _png(_side_by_side(real.numpy())), None, *_size(real)))
    return shown


def _worth_seeing(result: Evaluation) -> list[str]:
    widths = sorted({row.bits for row in result.rows if row.group == "modulated" and row.bits}, reverse=True)
    names = ["FP32", "static A8, MSE"]
    for bits in widths:
        names += [f"modulated A{bits}", f"modulated A{bits} + residual plane"]
        names += ["modulated A8, GPTQ"] if bits == 8 else [f"modulated A{bits}, GPTQ"]
        if bits in {4, widths[-1]}:
            names += [f"modulated A{bits}, no compensation", f"static A{bits}, MSE"]
    names += [row.name for row in result.rows if row.group == "planned"]
    known = {row.name for row in result.rows}
    return [name for name in names if name in known]


def _strip(row: Row, pictures: Mapping[str, torch.Tensor], target: torch.Tensor | None) -> Strip:
    mine = pictures[row.name]
    note = f"{row.psnr_median:.1f} dB median" if row.name != "FP32" else f"{row.sampler}, {row.steps} steps"
    errors = None
    if target is not None and row.name != "FP32" and row.group != "planned":
        apart = (mine.numpy().astype(np.int16) - target.numpy().astype(np.int16)) * ERROR_GAIN
        errors = _png(_side_by_side(np.clip(apart + 128, 0, 255).astype(np.uint8), 128))
    return Strip(row.name, note, _png(_side_by_side(mine.numpy())), errors, *_size(mine))


def _side_by_side(images: Pixels, paper: int = 255) -> Pixels:
    """uint8 ``[N, C, H, W]`` -> ``[H, N * (W + gap) - gap, C]``."""
    count, channels, height, width = images.shape
    sheet = np.full((height, count * (width + GAP) - GAP, channels), paper, np.uint8)
    for k, image in enumerate(images):
        sheet[:, k * (width + GAP) : k * (width + GAP) + width] = image.transpose(1, 2, 0)
    return sheet


def _png(sheet: Pixels) -> str:
    target = io.BytesIO()
    Image.fromarray(sheet[..., 0] if sheet.shape[2] == 1 else sheet).save(target, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()


def _size(images: torch.Tensor) -> tuple[int, int]:
    """Width and height of a strip."""
    count, _, height, width = images.shape
    return count * (width + GAP) - GAP, height
