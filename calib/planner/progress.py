"""What a planner has found so far, on disk, in two files named by the hash of everything that decides it.

``planning-*.json`` holds schedules, exponents and measurements as they come, ``planning-*.safetensors`` the sweep. Both
carry their own hash; a file that is damaged is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from calib.adjoint import LayerSweep, Sweep
from calib.errors import CalibrationError

if TYPE_CHECKING:
    from boards.model import Cost
    from calib.calibration import Calibration
    from calib.planner.config import PlannerConfig
    from calib.samplers import Sampler

ALGORITHM = 5
"""Raise it when the same settings would be searched or measured otherwise."""

ASKED = ("budgets", "reserves", "state_memory")
"""Settings that only say which plans are looked for: what was measured for others holds for them too."""

HASH_BYTES = 32
LAYER_TENSORS = ("input_gain", "output_gain", "largest_change", "samples")


@dataclass
class Journal:
    """What is known, by kind and key.

    Attributes:
        path: of the JSON file; None = memory only.
        known: JSON values.
    """

    path: Path | None
    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        folder: Path | None,
        calibration: Calibration,
        sampler: Sampler,
        config: PlannerConfig,
        board_cost: Cost | None,
    ) -> Journal:
        """The journal of one planning, with what it holds.

        Raises:
            CalibrationError: the file is damaged.
        """
        if folder is None:
            return cls(None)
        parts = [
            ALGORITHM,
            calibration.content_hash,
            sampler.name,
            sampler.steps,
            {key: value for key, value in dataclasses.asdict(config).items() if key not in ASKED},
            None if board_cost is None else dataclasses.asdict(board_cost),
        ]
        path = folder / f"planning-{digest_of(parts)[:16]}.json"
        if not path.is_file():
            return cls(path)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            known, digest = document["known"], document["sha256"]
        except (ValueError, KeyError, TypeError) as error:
            _refuse(path, str(error), error)
        if digest_of(known) != digest:
            _refuse(path, "its hash does not match")
        return cls(path, known)

    def remember(self, kind: str, key: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - any JSON value
        """What is known under ``key``, or else what ``make`` gives, stored; a crash leaves the old file or the new."""
        found = self.known.setdefault(kind, {})
        if key not in found:
            found[key] = make()
            if self.path is not None:
                document = {"sha256": digest_of(self.known), "known": self.known}
                _replace(self.path, json.dumps(document).encode())
        return found[key]

    def remember_sweep(self, make: Callable[[], Sweep]) -> Sweep:
        """The stored sweep, or else what ``make`` gives, stored.

        Raises:
            CalibrationError: the file is damaged.
        """
        if self.path is None:
            return make()
        path = self.path.with_suffix(".safetensors")
        if path.is_file():
            return _read_sweep(path)
        made = make()
        data = save(_tensors_of(made))
        _replace(path, hashlib.sha256(data).digest() + data)
        return made


def digest_of(value: object) -> str:
    """SHA-256 (hex) of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _tensors_of(made: Sweep) -> dict[str, torch.Tensor]:
    tensors = {"images": made.images.contiguous(), "step_gain": made.step_gain}
    for name, layer in made.layers.items():
        tensors[f"layer/{name}/sizes"] = torch.tensor([layer.macs, layer.inputs, layer.outputs])
        tensors |= {f"layer/{name}/{part}": getattr(layer, part).contiguous() for part in LAYER_TENSORS}
    for name, projection in made.projections.items():
        tensors[f"point/{name}/projections"] = projection.contiguous()
        tensors[f"point/{name}/elements"] = torch.tensor(made.point_elements[name])
    return tensors


def _read_sweep(path: Path) -> Sweep:
    stored = path.read_bytes()
    digest, data = stored[:HASH_BYTES], stored[HASH_BYTES:]
    if hashlib.sha256(data).digest() != digest:
        _refuse(path, "its hash does not match")
    try:
        tensors = load(data)
    except SafetensorError as error:
        _refuse(path, str(error), error)
    layers = {}
    for key in (key for key in tensors if key.startswith("layer/") and key.endswith("/sizes")):
        start = key.removesuffix("sizes")
        macs, inputs, outputs = (int(size) for size in tensors[key])
        parts = {part: tensors[start + part] for part in LAYER_TENSORS}
        layers[start[len("layer/") : -1]] = LayerSweep(macs, inputs, outputs, **parts)
    points = [key[len("point/") : -len("/elements")] for key in tensors if key.endswith("/elements")]
    return Sweep(
        tensors["images"],
        layers,
        tensors["step_gain"],
        {name: tensors[f"point/{name}/projections"] for name in points},
        {name: int(tensors[f"point/{name}/elements"]) for name in points},
    )


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def _refuse(path: Path, what: str, error: Exception | None = None) -> NoReturn:
    raise CalibrationError(f"damaged: {what}", where=str(path), mend="delete it; planning starts anew") from error
