"""Samplers as coefficient tables: DDIM and DPM-Solver++(2M) with Karras noise levels.

Every step of both is the same few fused multiplies, so that one generic program runs any of them::

    D  = clip(p_x * x + p_e * out)
    x' = c_x * x + c_e * out + c_d * D + c_p * D_previous

where ``out`` is what the denoiser returns and ``D`` the predicted clean image. The tables equal what diffusers'
``DDIMScheduler`` and ``DPMSolverMultistepScheduler`` do step by step (tests compare whole trajectories).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from calib.errors import CalibrationError, ModelError

if TYPE_CHECKING:
    import numpy.typing as npt

SamplerName = Literal["ddim", "dpmpp2m"]
Prediction = Literal["epsilon", "sample", "v_prediction"]
Spacing = Literal["leading", "trailing", "linspace"]

COLUMNS = ("p_x", "p_e", "c_x", "c_e", "c_d", "c_p")
KARRAS_RHO = 7.0


@dataclass(frozen=True)
class NoiseSchedule:
    """The training noise schedule, and what diffusers' scheduler configuration says about sampling from it.

    Attributes:
        alphas_cumprod: float64 ``[train timesteps]``, the squared signal share of the marginal at each timestep.
        prediction: what the denoiser's output means.
        clip: bound of the predicted clean image in DDIM, or None.
        final_alpha_is_one: DDIM's last step goes to the clean image, not to timestep 0.
        spacing, offset: how DDIM picks its timesteps.
        rounds_karras: Karras timesteps are rounded (else truncated), as diffusers does but for the cosine schedule.
    """

    alphas_cumprod: npt.NDArray[np.float64]
    prediction: Prediction = "epsilon"
    clip: float | None = 1.0
    final_alpha_is_one: bool = True
    spacing: Spacing = "leading"
    offset: int = 0
    rounds_karras: bool = True

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any], *, where: str = "scheduler_config.json") -> NoiseSchedule:
        """Read a diffusers scheduler configuration (DDPM, DDIM or DPMSolverMultistep).

        Raises:
            ModelError: a schedule or setting that the tables cannot express.
        """
        prediction = config.get("prediction_type", "epsilon")
        if prediction not in get_args(Prediction):
            raise ModelError(f"prediction_type {prediction!r} is not supported", where=where)
        if config.get("thresholding"):
            raise ModelError("dynamic thresholding is not a table of coefficients", where=where)
        spacing = config.get("timestep_spacing", "leading")
        if spacing not in get_args(Spacing):
            raise ModelError(f"timestep_spacing {spacing!r} is not supported", where=where)
        if config.get("rescale_betas_zero_snr"):
            raise ModelError("zero terminal SNR is not supported", where=where)
        alphas = torch.from_numpy(1 - _betas(config, where)).cumprod(0).double().numpy()
        if not (np.isfinite(alphas).all() and (alphas > 0).all() and (alphas < 1).all()):
            raise ModelError("the noise schedule leaves (0, 1)", where=where)
        clip = float(config.get("clip_sample_range", 1.0)) if config.get("clip_sample", True) else None
        return cls(
            alphas,
            prediction,
            clip,
            bool(config.get("set_alpha_to_one", True)),
            spacing,
            int(config.get("steps_offset", 0)),
            config.get("beta_schedule", "linear") != "squaredcos_cap_v2",
        )


def _betas(config: Mapping[str, Any], where: str) -> npt.NDArray[np.float32]:
    """The noise added at each training timestep, float32 as diffusers computes it."""
    if config.get("trained_betas") is not None:
        return np.asarray(config["trained_betas"], dtype=np.float32)
    count = int(config.get("num_train_timesteps", 1000))
    first, last = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    schedule = config.get("beta_schedule", "linear")
    match schedule:
        case "linear":
            linear: npt.NDArray[np.float32] = torch.linspace(first, last, count).numpy()
            return linear
        case "scaled_linear":
            scaled: npt.NDArray[np.float32] = torch.linspace(first**0.5, last**0.5, count).square().numpy()
            return scaled
        case "squaredcos_cap_v2":
            # Nichol and Dhariwal (2021), equation 17.
            share = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
            cosine: npt.NDArray[np.float32] = np.minimum(1 - share[1:] / share[:-1], 0.999).astype(np.float32)
            return cosine
        case _:
            raise ModelError(f"beta_schedule {schedule!r} is not supported", where=where)


@dataclass(frozen=True)
class Sampler:
    """A sampler of ``T`` steps as tables.

    Attributes:
        name: which one.
        timesteps: int64 ``[T]``, what the denoiser is called with.
        coefficients: float32 ``[T, 6]``, columns ``COLUMNS``.
        first_coefficients: float32 ``[T, 6]``, for the first step a job runs (it has no ``D_previous``).
        start_coefficients: float32 ``[T, 2]``, signal and noise share of the marginal at the input of each step.
        initial_sigma: scale of the noise that step 0 starts from.
        clip: bound of ``D``, or None.
    """

    name: SamplerName
    timesteps: torch.Tensor
    coefficients: torch.Tensor
    first_coefficients: torch.Tensor
    start_coefficients: torch.Tensor
    initial_sigma: float
    clip: float | None

    @property
    def steps(self) -> int:
        """Number of steps ``T``."""
        return len(self.timesteps)

    def advance(
        self, i: int, x: torch.Tensor, out: torch.Tensor, previous: torch.Tensor, *, first: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One step in float32, each operation rounded once.

        Args:
            i: step.
            x: float32, the sample at the step's input.
            out: float32, the denoiser's output for it.
            previous: float32, ``D`` of the step before (anything finite when ``first``).
            first: whether the job starts here.

        Returns:
            The next sample and ``D``.
        """
        p_x, p_e, c_x, c_e, c_d, c_p = (self.first_coefficients if first else self.coefficients)[i]
        clean = p_x * x + p_e * out
        if self.clip is not None:
            clean = clean.clamp(-self.clip, self.clip)
        return c_x * x + c_e * out + c_d * clean + c_p * previous, clean


def build_sampler(name: str, steps: int, schedule: NoiseSchedule) -> Sampler:
    """Make the tables of a sampler.

    Args:
        name: ``ddim`` (Song et al., 2020, eta 0) or ``dpmpp2m`` (Lu et al., 2022, algorithm 2, midpoint, on the
            noise levels of Karras et al., 2022, equation 5).
        steps: ``T``, from 1 to the schedule's training timesteps.
        schedule: of the model.

    Raises:
        CalibrationError: unknown name, or a number of steps that the schedule does not have.
    """
    most = len(schedule.alphas_cumprod)
    if not 1 <= steps <= most:
        raise CalibrationError(f"{steps} steps", where="sampler", mend=f"use 1..{most}")
    match name:
        case "ddim":
            return _ddim(steps, schedule)
        case "dpmpp2m":
            return _dpmpp2m(steps, schedule)
        case _:
            raise CalibrationError(f"unknown sampler {name!r}", mend=f"use one of {get_args(SamplerName)}")


def _clean_and_noise(
    alpha: npt.NDArray[np.float64], sigma: npt.NDArray[np.float64], prediction: Prediction
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Coefficients of (x, out) in the predicted clean image and in the predicted noise, each ``[T, 2]``."""
    zero, one = np.zeros_like(alpha), np.ones_like(alpha)
    match prediction:
        case "epsilon":
            clean, noise = (1 / alpha, -sigma / alpha), (zero, one)
        case "sample":
            clean, noise = (zero, one), (1 / sigma, -alpha / sigma)
        case "v_prediction":
            clean, noise = (alpha, -sigma), (sigma, alpha)
    return np.stack(clean, 1), np.stack(noise, 1)


def _ddim_timesteps(steps: int, schedule: NoiseSchedule) -> npt.NDArray[np.int64]:
    most = len(schedule.alphas_cumprod)
    match schedule.spacing:
        case "leading":
            return (np.arange(steps) * (most // steps))[::-1].astype(np.int64) + schedule.offset
        case "trailing":
            return np.round(most - np.arange(steps) * (most / steps)).astype(np.int64) - 1
        case "linspace":
            return np.linspace(0, most - 1, steps).round()[::-1].astype(np.int64)


def _ddim(steps: int, schedule: NoiseSchedule) -> Sampler:
    """DDIM with eta 0: ``x' = alpha' * D + sigma' * noise``."""
    cumprod = schedule.alphas_cumprod
    timesteps = _ddim_timesteps(steps, schedule)
    if timesteps.max() >= len(cumprod):
        raise CalibrationError(f"timestep {timesteps.max()} does not exist", where="sampler", mend="use fewer steps")
    earlier = timesteps - len(cumprod) // steps
    final = 1.0 if schedule.final_alpha_is_one else cumprod[0]
    now, after = cumprod[timesteps], np.where(earlier >= 0, cumprod[np.maximum(earlier, 0)], final)
    alpha, sigma = np.sqrt(now), np.sqrt(1 - now)
    clean, noise = _clean_and_noise(alpha, sigma, schedule.prediction)
    next_alpha, next_sigma = np.sqrt(after)[:, None], np.sqrt(1 - after)[:, None]
    table = _float32(np.hstack([clean, next_sigma * noise, next_alpha, np.zeros((steps, 1))]))
    start = _float32(np.stack([alpha, sigma], 1))
    return Sampler("ddim", torch.from_numpy(timesteps.copy()), table, table, start, 1.0, schedule.clip)


def _karras(steps: int, schedule: NoiseSchedule) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Noise levels ``sigma / alpha`` of the steps, largest first, and the timesteps nearest to them."""
    signal = schedule.alphas_cumprod.astype(np.float32)
    levels = ((1 - signal) / signal) ** 0.5  # float32, as diffusers: a truncated timestep depends on it
    low, high = float(levels[0]) ** (1 / KARRAS_RHO), float(levels[-1]) ** (1 / KARRAS_RHO)
    chosen = (high + np.linspace(0, 1, steps) * (low - high)) ** KARRAS_RHO
    timesteps = np.interp(np.log(chosen), np.log(levels), np.arange(len(levels)))
    return chosen, (timesteps.round() if schedule.rounds_karras else timesteps).astype(np.int64)


def _dpmpp2m(steps: int, schedule: NoiseSchedule) -> Sampler:
    """DPM-Solver++(2M), midpoint; first order at a job's first step and at the last, which ends at no noise."""
    levels, timesteps = _karras(steps, schedule)
    alpha = 1 / np.sqrt(levels**2 + 1)
    sigma = levels * alpha
    next_alpha, next_sigma = np.append(alpha[1:], 1.0), np.append(sigma[1:], 0.0)
    clean, _ = _clean_and_noise(alpha, sigma, schedule.prediction)
    half_log_snr = -np.log(levels)
    step_size = np.append(np.diff(half_log_snr), np.inf)
    first_order = -next_alpha * np.expm1(-step_size)
    zero = np.zeros(steps)
    correction = zero.copy()
    correction[1:-1] = 0.5 * first_order[1:-1] * step_size[1:-1] / step_size[:-2]
    shared = [clean, (next_sigma / sigma)[:, None], zero[:, None]]
    table = np.hstack([*shared, np.stack([first_order + correction, -correction], 1)])
    first = np.hstack([*shared, np.stack([first_order, zero], 1)])
    start = _float32(np.stack([alpha, sigma], 1))
    return Sampler("dpmpp2m", torch.from_numpy(timesteps), _float32(table), _float32(first), start, 1.0, None)


def _float32(table: npt.NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(table.astype(np.float32))
