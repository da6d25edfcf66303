"""What a planner has measured so far, on disk: one JSON file, named by the hash of everything that decides it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calib.errors import CalibrationError

if TYPE_CHECKING:
    from boards.model import Cost
    from calib.calibration import Calibration
    from calib.planner.search import PlannerConfig
    from calib.samplers import Sampler

ALGORITHM = 1
"""Raise it when the same plan would be measured otherwise."""


@dataclass
class Journal:
    """PSNR of each seed, by the content hash of the planned calibration.

    Attributes:
        path: of the file; None = memory only.
        measured: what is known.
    """

    path: Path | None
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)

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
            dataclasses.asdict(config),
            None if board_cost is None else dataclasses.asdict(board_cost),
        ]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        path = folder / f"planning-{digest[:16]}.json"
        if not path.is_file():
            return cls(path)
        try:
            measured = json.loads(path.read_text(encoding="utf-8"))
            entries = {str(key): {"title": str(each["title"]), "psnr": [float(value) for value in each["psnr"]]}
                       for key, each in measured.items()}  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(
                f"damaged: {error}", where=str(path), mend="delete it; planning starts anew"
            ) from error
        return cls(path, entries)

    def recall(self, key: str) -> list[float] | None:
        """What was measured before, dB a seed."""
        found = self.measured.get(key)
        return None if found is None else list(found["psnr"])

    def keep(self, key: str, title: str, levels: list[float]) -> None:
        """Store a measurement; a crash leaves the old file or the new one."""
        self.measured[key] = {"title": title, "psnr": levels}
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.measured, indent=1), encoding="utf-8")
        part.replace(self.path)
