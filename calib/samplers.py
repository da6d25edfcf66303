"""Samplers as coefficient tables: ``build_sampler`` makes them, ``Sampler.advance`` runs a step of them.

The tables equal what diffusers' schedulers do step by step (tests compare whole trajectories); ``calib.solvers``
has the formulas, ``calib.levels`` the noise levels, ``edge.lower.program`` the same step for the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from calib import solvers
from calib.errors import CalibrationError
from calib.schedules import NoiseSchedule
from calib.solvers import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from calib.schedules import Schedule

__all__ = ["COLUMNS", "History", "NoiseSchedule", "Sampler", "SamplerName", "build_sampler"]

SamplerName = Literal["ddim", "ddpm", "dpmpp2m", "euler", "heun", "flow-euler"]
MAX_STEPS = 1000

SOLVERS: dict[SamplerName, Callable[..., solvers.Table]] = {
    "ddim": solvers.ddim,
    "ddpm": solvers.ddpm,
    "dpmpp2m": solvers.dpmpp2m,
    "euler": solvers.euler,
    "heun": solvers.heun,
    "flow-euler": solvers.flow_euler,
}


@dataclass(frozen=True)
class History:
    """What a step leaves for the next: its predicted clean image and its input sample, float32 like the sample."""

    clean: torch.Tensor
    sample: torch.Tensor

    @classmethod
    def empty(cls, x: torch.Tensor) -> History:
        """Of a job that has not begun."""
        return cls(torch.zeros_like(x), torch.zeros_like(x))


@dataclass(frozen=True)
class Sampler:
    """A sampler of ``T`` denoiser evaluations as tables.

    Attributes:
        name: which one.
        timesteps: int64 or float32 ``[T]``, what the denoiser is called with.
        coefficients: float32 ``[T, 8]``, columns ``COLUMNS``.
        first_coefficients: float32 ``[T, 8]``, for the first step a job runs (it has no step before).
        start_coefficients: float32 ``[T, 2]``, signal and noise share of the sample at the input of each step.
        input_scale: float32 ``[T]``, what the sample is multiplied by for the denoiser.
        initial_sigma: scale of the noise that step 0 starts from.
        clip: bound of ``D``, or None.
    """

    name: SamplerName
    timesteps: torch.Tensor
    coefficients: torch.Tensor
    first_coefficients: torch.Tensor
    start_coefficients: torch.Tensor
    input_scale: torch.Tensor
    initial_sigma: float
    clip: float | None

    @property
    def steps(self) -> int:
        """Number of denoiser evaluations ``T``."""
        return len(self.timesteps)

    @cached_property
    def columns(self) -> frozenset[str]:
        """The columns that are not zero throughout: the others cost nothing."""
        used = (self.coefficients != 0).any(0) | (self.first_coefficients != 0).any(0)
        return frozenset(name for name, is_used in zip(COLUMNS, used.tolist(), strict=True) if is_used)

    @property
    def draws_noise(self) -> bool:
        """Whether steps add fresh noise."""
        return "c_n" in self.columns

    @property
    def scales_input(self) -> bool:
        """Whether the denoiser sees another tensor than the sample."""
        return bool((self.input_scale != 1).any())

    def denoiser_input(self, i: int, x: torch.Tensor) -> torch.Tensor:
        """What the denoiser is called with at step ``i``: float32 like ``x``."""
        return self.input_scale[i] * x if self.scales_input else x

    def advance(
        self,
        i: int,
        x: torch.Tensor,
        out: torch.Tensor,
        before: History,
        *,
        first: bool,
        noise: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, History]:
        """One step in float32, each product and sum rounded once, in the order of the columns.

        Args:
            i: step.
            x: float32, the sample at the step's input.
            out: float32, the denoiser's output for it.
            before: what the step before left (anything finite when ``first``).
            first: whether the job starts here.
            noise: float32 like ``x``, standard normal; needed where the sampler draws noise.

        Returns:
            The next sample, and what it leaves for the next step.

        Raises:
            CalibrationError: no noise for a sampler that draws it.
        """
        if noise is None and self.draws_noise:
            raise CalibrationError(f"{self.name} draws noise at each step", where="sampler", mend="give `seeds`")
        row = dict(zip(COLUMNS, (self.first_coefficients if first else self.coefficients)[i], strict=True))
        clean = row["p_x"] * x + row["p_e"] * out
        if self.clip is not None:
            clean = clean.clamp(-self.clip, self.clip)
        terms = {"c_x": x, "c_e": out, "c_d": clean, "c_1": before.clean, "c_2": before.sample, "c_n": noise}
        moved: torch.Tensor | None = None
        for name, term in terms.items():
            if name in self.columns and term is not None:
                product = row[name] * term
                moved = product if moved is None else moved + product
        assert moved is not None
        return moved, History(clean, x)


def build_sampler(name: str, steps: int, schedule: Schedule, *, karras: bool | None = None) -> Sampler:
    """Make the tables of a sampler.

    Args:
        name: ``ddim`` (Song et al., 2020, eta 0), ``ddpm`` (Ho et al., 2020), ``dpmpp2m`` (Lu et al., 2022),
            ``euler``, ``heun`` (Karras et al., 2022; ``heun`` evaluates the denoiser ``2 * steps - 1`` times) or
            ``flow-euler`` (rectified flows).
        steps: from 1 to the schedule's training timesteps (1000 in continuous time).
        schedule: of the model.
        karras: noise levels of Karras et al. (2022, equation 5); None: for ``dpmpp2m``, and in continuous time for
            all but flows.

    Raises:
        CalibrationError: unknown name, a number of steps that the schedule does not have, or a solver that cannot
            run its process.
    """
    most = len(schedule.alphas_cumprod) if isinstance(schedule, NoiseSchedule) else MAX_STEPS
    if not 1 <= steps <= most:
        raise CalibrationError(f"{steps} steps", where="sampler", mend=f"use 1..{most}")
    for known in get_args(SamplerName):
        if name == known:
            return _to_sampler(known, SOLVERS[known](steps, schedule, karras=karras))
    raise CalibrationError(f"unknown sampler {name!r}", mend=f"use one of {', '.join(get_args(SamplerName))}")


def _to_sampler(name: SamplerName, table: solvers.Table) -> Sampler:
    rows, first, start, scale = (_float32(one) for one in (table.rows, table.first, table.start, table.input_scale))
    if not all(torch.isfinite(tensor).all() for tensor in (rows, first, start, scale)):
        raise CalibrationError(
            f"{name} needs something that the network's output does not say at pure noise",
            where="sampler",
            mend="use a schedule whose `latest` is a little smaller",
        )
    times = torch.from_numpy(np.ascontiguousarray(table.times))
    return Sampler(name, times, rows, first, start, scale, table.initial_sigma, table.clip)


def _float32(table: npt.NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(table, dtype=np.float32))
