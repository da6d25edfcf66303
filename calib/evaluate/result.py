"""What an evaluation found, and its file."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from calib.errors import CalibrationError
from calib.evaluate.intervals import Interval

FORMAT_VERSION = 1


@dataclass(frozen=True)
class FeatureDistances:
    """Distances of a way's images in the feature network's space; None where there are too few images.

    Attributes:
        frechet_float, kernel_float: to the float model's images of the same seeds and sampler.
        frechet_real, kernel_real: to real images.
    """

    frechet_float: Interval | None = None
    kernel_float: Interval | None = None
    frechet_real: Interval | None = None
    kernel_real: Interval | None = None


@dataclass(frozen=True)
class Row:
    """One way to make the images.

    Attributes:
        name: of the way.
        group: which table it belongs to: ``float``, ``unmodulated``, ``modulated``, ``weights``, ``planned``,
            ``fewer steps``.
        sampler, steps: solver, and how often it runs the denoiser.
        bits: of the codes that the layers' inputs or changes have; None in floating point.
        passes, residual_passes: a step, every layer weighted by its MACs; None where nothing is modulated.
        full_steps: MACs of a job in units of one float step of the model, all passes counted.
        psnr: dB against the float model with the same sampler and steps.
        psnr_median, psnr_min: the same, over the seeds.
        psnr_reference: dB against the float reference with many steps.
        ssim, same_pixels, within_one: against the float model: structural similarity, share of equal 8-bit pixels, and
            of those at most one level apart.
        saturated: share of quantized changes that were clamped; None where nothing is counted.
        features: distances in the feature network's space.
        psnr_by_seed: what ``psnr`` is the mean of.
    """

    name: str
    group: str
    sampler: str
    steps: int
    bits: int | None
    passes: float | None
    residual_passes: float | None
    full_steps: float
    psnr: Interval
    psnr_median: float
    psnr_min: float
    psnr_reference: Interval
    ssim: Interval
    same_pixels: Interval
    within_one: Interval
    saturated: float | None = None
    features: FeatureDistances = field(default_factory=FeatureDistances)
    psnr_by_seed: tuple[float, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """The table and what it was made with.

    Attributes:
        model, model_hash: name and content hash of the model.
        sampler, steps: of every way that does not say otherwise.
        reference: the float reference, such as ``dpmpp2m, 250 steps``.
        seeds: that were evaluated.
        calibration_seeds: that the calibration has seen.
        feature_network: its name, or None where no distances were measured.
        real_images: how many real images the distances are to.
        command: that made it.
        rows: the ways.
    """

    model: str
    model_hash: str
    sampler: str
    steps: int
    reference: str
    seeds: tuple[int, ...]
    calibration_seeds: tuple[int, ...]
    feature_network: str | None
    real_images: int
    command: str
    rows: tuple[Row, ...]

    def row(self, name: str) -> Row:
        """The row of that name.

        Raises:
            KeyError: there is none.
        """
        return {row.name: row for row in self.rows}[name]

    def to_json(self) -> str:
        """The file; infinite numbers (an image that equals its reference) are null."""
        document = {"format": FORMAT_VERSION, **dataclasses.asdict(self)}
        return json.dumps(_finite(document), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "evaluation") -> Evaluation:
        """Read ``to_json``'s text.

        Raises:
            CalibrationError: not JSON, another format version, or keys that are missing or unknown.
        """
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise CalibrationError(f"not JSON: {error}", where=where) from error
        version = document.pop("format", None) if isinstance(document, dict) else None
        if version != FORMAT_VERSION:
            raise CalibrationError(
                f"evaluation format {version!r} is unknown", where=where, mend=f"this kit reads {FORMAT_VERSION}"
            )
        try:
            typed: dict[str, Any] = {**document, "rows": tuple(_read_row(row) for row in document["rows"])}
            for key in ("seeds", "calibration_seeds"):
                typed[key] = tuple(document[key])
            return cls(**typed)
        except (KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(f"a key is missing or unknown: {error}", where=where) from error


def _finite(value: object) -> object:
    match value:
        case dict():
            return {key: _finite(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_finite(entry) for entry in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value


def _number(value: float | None) -> float:
    return math.inf if value is None else float(value)


def _interval(value: Mapping[str, Any]) -> Interval:
    return Interval(**{key: _number(entry) for key, entry in value.items()})


def _read_row(row: dict[str, Any]) -> Row:
    typed: dict[str, Any] = dict(row)
    for key in ("psnr", "psnr_reference", "ssim", "same_pixels", "within_one"):
        typed[key] = _interval(row[key])
    for key in ("psnr_median", "psnr_min"):
        typed[key] = _number(row[key])
    typed["psnr_by_seed"] = tuple(_number(value) for value in row["psnr_by_seed"])
    features = {key: None if value is None else _interval(value) for key, value in row["features"].items()}
    typed["features"] = FeatureDistances(**features)
    return Row(**typed)
