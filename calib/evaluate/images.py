"""Images of the ways, kept on disk so that a stopped evaluation goes on where it was."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from calib.documents import to_document
from calib.errors import CalibrationError
from calib.evaluate.cost import Cost
from calib.evaluate.ways import Float, Way
from calib.samplers import Sampler

ALGORITHM = 2
"""Raise it when the same way would make other images, so that no old ones are found."""


@dataclass(frozen=True)
class Images:
    """What one way made of some seeds.

    Attributes:
        images: float32 ``[seeds, C, H, W]``.
        sampler, steps: that they were made with.
        cost: of one image.
        saturated, elements: quantized changes that were clamped, and all of them; 0 where nothing is counted.
    """

    images: torch.Tensor
    sampler: str
    steps: int
    cost: Cost
    saturated: int = 0
    elements: int = 0

    @property
    def saturation(self) -> float | None:
        """Share of quantized changes that were clamped; None where nothing is counted."""
        return self.saturated / self.elements if self.elements else None

    @classmethod
    def joined(cls, parts: Sequence[Images]) -> Images:
        """The images of several lots of seeds, made in the same way."""
        first = parts[0]
        return cls(
            torch.cat([part.images for part in parts]),
            first.sampler,
            first.steps,
            first.cost,
            sum(part.saturated for part in parts),
            sum(part.elements for part in parts),
        )


def image_key(model_hash: str, calibration_hash: str, sampler: Sampler, way: Way, seeds: range) -> str:
    """SHA-256 (hex) over everything that decides a way's images of some seeds."""
    # The float model depends on no calibration.
    made_with = [] if isinstance(way, Float) else [calibration_hash, sampler.name, sampler.steps]
    document = [ALGORITHM, model_hash, type(way).__name__, to_document(way), made_with, [seeds.start, seeds.stop]]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


class ImageStore:
    """A folder of ``<key>.safetensors``, and what was made in this run.

    Args:
        folder: made where it is missing; None = nothing is kept beyond this run.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._made: dict[str, Images] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> Images | None:
        """The images, or None where they are still to be made.

        Raises:
            CalibrationError: a damaged file.
        """
        if key not in self._made and self.folder is not None and (self.folder / f"{key}.safetensors").is_file():
            self._made[key] = _read(self.folder / f"{key}.safetensors")
        return self._made.get(key)

    def put(self, key: str, made: Images) -> None:
        """Keep the images; a crash leaves no half of them."""
        self._made[key] = made
        if self.folder is None:
            return
        about = {**dataclasses.asdict(made.cost), "sampler": made.sampler, "steps": made.steps}
        about |= {"saturated": made.saturated, "elements": made.elements}
        part = self.folder / f"{key}.part"
        save_file({"images": made.images.contiguous()}, part, metadata={"about": json.dumps(about)})
        part.replace(self.folder / f"{key}.safetensors")


def _read(path: Path) -> Images:
    try:
        with safe_open(path, framework="pt") as file:
            about, images = json.loads(file.metadata()["about"]), file.get_tensor("images")
        cost = Cost(about["passes"], about["residual_passes"], about["full_steps"])
        return Images(images, about["sampler"], about["steps"], cost, about["saturated"], about["elements"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CalibrationError(f"damaged: {error}", where=str(path), mend="delete the file") from error
