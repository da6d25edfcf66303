"""What a deployment is asked to do, checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge.errors import NoModelError, UsageError

MAX_STEPS = 1000
MAX_JOBS = 64


@dataclass(frozen=True)
class DeployOptions:
    """One deployment: which model on which board, with which sampler, and the jobs that show it works.

    Attributes:
        board: name of a board file or path to one.
        model: diffusers folder, ``FILE.py:FUNCTION`` or ``PACKAGE.MODULE:FUNCTION``; None = the demo model.
        port: ``auto``, a device path, ``tls://`` before either, ``tls://HOST:PORT``, or None: a board if one answers,
            else a virtual one.
        virtual: start a virtual board even if ports are there.
        sampler: ``ddim``, ``ddpm``, ``dpmpp2m``, ``euler``, ``heun`` or ``flow-euler``.
        steps: sampler steps T.
        seeds: one ``generate`` job each.
        images: pictures for ``inspect`` jobs; empty means the demo's held-out crops when the demo model is used.
        inspect_from: share of the sampler's steps that an inspection skips; 0.84 keeps the last 16%.
        out: folder for pictures and the JSON report.
        cache: folder for calibrations, engines and virtual boards.
        conditions: ``NAME=VALUE`` or ``NAME=FILE`` each, for conditional models.
        guidance: scale of classifier-free guidance, or None.
        references: folder of pictures that inspected ones should look like, or None: the demo model brings its own, for
            others it is what they generate.
        calibration: folder of a stored calibration, with the uniform plan or the planner's; None: made here.
    """

    board: str
    model: str | None
    port: str | None
    virtual: bool
    sampler: str
    steps: int
    seeds: tuple[int, ...]
    images: tuple[Path, ...]
    inspect_from: float
    out: Path
    cache: Path
    conditions: tuple[str, ...] = ()
    guidance: float | None = None
    references: Path | None = None
    calibration: Path | None = None

    def check(self) -> None:
        """Refuse what cannot work, with the option's name.

        Raises:
            UsageError: an option is out of its range.
            NoModelError: there is nothing where the model should be.
        """
        if self.model is not None and not _may_exist(self.model):
            mend = "name a folder as diffusers saves it, or a function of your code: FILE.py:FUNCTION"
            raise NoModelError("no such folder", where=self.model, mend=mend)
        if not 2 <= self.steps <= MAX_STEPS:
            raise UsageError(f"{self.steps} sampler steps", where="--steps", mend=f"take 2 to {MAX_STEPS}")
        if not 0.0 < self.inspect_from < 1.0:
            raise UsageError(f"{self.inspect_from} is no share", where="--inspect-from", mend="take 0.05 to 0.95")
        if len(self.seeds) + len(self.images) > MAX_JOBS:
            raise UsageError(
                "too many jobs for one deployment", where="--generate, --image", mend=f"at most {MAX_JOBS}"
            )
        if self.virtual and self.port is not None:
            raise UsageError(
                "a virtual board has no port to choose", where="--virtual, --port", mend="give one of them"
            )

    def inspect_start(self, steps: int) -> int:
        """First step of an inspection, in [1, steps - 1], of a sampler that runs ``steps`` evaluations."""
        return min(steps - 1, max(1, round(steps * self.inspect_from)))


def _may_exist(model: str) -> bool:
    """Whether a model can be there; whether an imported module is, only its import tells."""
    place, separator, _ = model.rpartition(":")
    return Path(model).exists() or (bool(separator) and (not place.endswith(".py") or Path(place).is_file()))
