"""Which noise levels a sampler visits: timesteps as diffusers spaces them, Karras levels, even continuous times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calib.errors import CalibrationError
from calib.schedules import ContinuousSchedule, NoiseSchedule

if TYPE_CHECKING:
    import numpy.typing as npt

    from calib.schedules import Schedule

    Array = npt.NDArray[np.float64]
    Times = npt.NDArray[np.int64] | npt.NDArray[np.float32]

KARRAS_RHO = 7.0


@dataclass(frozen=True)
class Levels:
    """The levels of ``T`` evaluations, largest noise first.

    Attributes:
        times: ``[T]`` int64 or float32, what the denoiser is called with.
        alpha, sigma: float64 ``[T]``, signal and noise share of the process at each evaluation.
        next_alpha, next_sigma: float64 ``[T]``, where each step ends; the last one at (1, 0) as a rule.
        input_scale: float64 ``[T]``, from the process's sample to the denoiser's input.
    """

    times: Times
    alpha: Array
    sigma: Array
    next_alpha: Array
    next_sigma: Array
    input_scale: Array

    @classmethod
    def chain(cls, times: Times, alpha: Array, sigma: Array, input_scale: Array | None = None) -> Levels:
        """Each step ends where the next begins, the last one at the clean image."""
        scale = np.ones(len(alpha)) if input_scale is None else input_scale
        return cls(times, alpha, sigma, np.append(alpha[1:], 1.0), np.append(sigma[1:], 0.0), scale)


def even_levels(steps: int, schedule: Schedule) -> Levels:
    """DDPM's timesteps in diffusers; in continuous time, evenly spaced times."""
    if isinstance(schedule, ContinuousSchedule):
        return _at_times(schedule, schedule.warp(np.linspace(schedule.latest, schedule.earliest, steps)))
    timesteps = _even_timesteps(steps, schedule)
    now = schedule.alphas_cumprod[timesteps]
    return Levels.chain(timesteps, np.sqrt(now), np.sqrt(1 - now))


def ddim_levels(steps: int, schedule: Schedule) -> Levels:
    """The same, but a discrete step ends ``train timesteps // T`` earlier, as diffusers' DDIM says."""
    if isinstance(schedule, ContinuousSchedule):
        return even_levels(steps, schedule)
    cumprod, timesteps = schedule.alphas_cumprod, _even_timesteps(steps, schedule)
    earlier = timesteps - len(cumprod) // steps
    final = 1.0 if schedule.final_alpha_is_one else cumprod[0]
    now, after = cumprod[timesteps], np.where(earlier >= 0, cumprod[np.maximum(earlier, 0)], final)
    return Levels(timesteps, np.sqrt(now), np.sqrt(1 - now), np.sqrt(after), np.sqrt(1 - after), np.ones(steps))


def karras_levels(steps: int, schedule: Schedule) -> Levels:
    """Karras noise levels (Karras et al., 2022, equation 5) over all that the schedule has.

    Timesteps are whole numbers, as those of diffusers' DPMSolverMultistepScheduler.
    """
    if isinstance(schedule, ContinuousSchedule):
        return _continuous_karras(steps, schedule)
    levels = _ratios(schedule)
    chosen = _karras(float(levels[-1]), float(levels[0]), steps)
    timesteps = _timesteps_of(chosen, levels)
    return _at_ratios((timesteps.round() if schedule.rounds_karras else timesteps).astype(np.int64), chosen)


def multistep_levels(steps: int, schedule: Schedule) -> Levels:
    """Timesteps of DPMSolverMultistepScheduler without Karras levels."""
    if isinstance(schedule, ContinuousSchedule):
        return even_levels(steps, schedule)
    most = len(schedule.alphas_cumprod)
    match schedule.spacing:
        case "linspace":
            timesteps = np.linspace(0, most - 1, steps + 1).round()[::-1][:-1].astype(np.int64)
        case "leading":
            timesteps = (np.arange(steps + 1) * (most // (steps + 1)))[::-1][:-1].astype(np.int64) + schedule.offset
        case "trailing":
            timesteps = np.arange(most, 0, -most / steps).round()[:steps].astype(np.int64) - 1
    _check_timesteps(timesteps, most)
    return _at_ratios(timesteps, _ratios(schedule)[timesteps].astype(np.float64))


def sigma_levels(steps: int, schedule: Schedule, *, karras: bool) -> Levels:
    """Timesteps of EulerDiscreteScheduler and HeunDiscreteScheduler: real numbers, levels interpolated."""
    if isinstance(schedule, ContinuousSchedule):
        return _continuous_karras(steps, schedule) if karras else even_levels(steps, schedule)
    most, levels = len(schedule.alphas_cumprod), _ratios(schedule)
    if schedule.spacing == "linspace":
        times = np.linspace(0, most - 1, steps, dtype=np.float32)[::-1].astype(np.float64)
    else:
        times = _even_timesteps(steps, schedule).astype(np.float64)
    _check_timesteps(times, most)
    ratios: Array = np.interp(times, np.arange(most), levels)
    if karras:
        ratios = _karras(float(ratios[0]), float(ratios[-1]), steps)
        times = _timesteps_of(ratios, levels)
    return _at_ratios(times.astype(np.float32), ratios)


def _even_timesteps(steps: int, schedule: NoiseSchedule) -> npt.NDArray[np.int64]:
    most = len(schedule.alphas_cumprod)
    match schedule.spacing:
        case "leading":
            timesteps = (np.arange(steps) * (most // steps))[::-1].astype(np.int64) + schedule.offset
        case "trailing":
            timesteps = np.round(most - np.arange(steps) * (most / steps)).astype(np.int64) - 1
        case "linspace":
            timesteps = np.linspace(0, most - 1, steps).round()[::-1].astype(np.int64)
    _check_timesteps(timesteps, most)
    return timesteps


def _check_timesteps(timesteps: npt.NDArray[np.int64] | Array, most: int) -> None:
    if timesteps.max() >= most:
        raise CalibrationError(f"timestep {timesteps.max():g} does not exist", where="sampler", mend="use fewer steps")


def _ratios(schedule: NoiseSchedule) -> npt.NDArray[np.float32]:
    """``sigma / alpha`` of every timestep, float32 as diffusers has it: a truncated timestep depends on it."""
    signal = schedule.alphas_cumprod.astype(np.float32)
    ratios: npt.NDArray[np.float32] = ((1 - signal) / signal) ** 0.5
    return ratios


def _karras(highest: float, lowest: float, steps: int) -> Array:
    high, low = highest ** (1 / KARRAS_RHO), lowest ** (1 / KARRAS_RHO)
    ratios: Array = (high + np.linspace(0, 1, steps) * (low - high)) ** KARRAS_RHO
    return ratios


def _timesteps_of(ratios: Array, levels: npt.NDArray[np.float32]) -> Array:
    """The (real) timesteps of noise levels, interpolated in their logarithm."""
    timesteps: Array = np.interp(np.log(ratios), np.log(levels), np.arange(len(levels)))
    return timesteps


def _at_ratios(times: Times, ratios: Array) -> Levels:
    """Variance-preserving levels of given ``sigma / alpha``."""
    alpha = 1 / np.sqrt(ratios**2 + 1)
    return Levels.chain(times, alpha, ratios * alpha)


def _continuous_karras(steps: int, schedule: ContinuousSchedule) -> Levels:
    with np.errstate(divide="ignore"):
        ends = [float(schedule.sigma(t) / schedule.alpha(t)) for t in np.array([schedule.latest, schedule.earliest])]
    if not np.isfinite(ends[0]):
        raise CalibrationError(
            "the process starts without any signal, which has no noise ratio",
            where="sampler",
            mend="use ddim or flow-euler, karras=False, or a schedule whose `latest` is a little smaller",
        )
    return _at_times(schedule, schedule.times_of(_karras(ends[0], ends[1], steps)))


def _at_times(schedule: ContinuousSchedule, times: Array) -> Levels:
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    scale = schedule.input_scale(alpha, sigma) if schedule.input_scale is not None else None
    return Levels.chain(schedule.denoiser_time(times).astype(np.float32), alpha, sigma, scale)
