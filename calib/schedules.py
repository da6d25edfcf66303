"""Noising processes: how much signal and noise a sample has at a time, and what a denoiser says about it.

Every process mixes a clean image with noise, ``x = alpha * clean + sigma * noise``, and every denoiser's output is a
linear statement about the two. ``NoiseSchedule`` holds the timesteps that a network was trained on;
``ContinuousSchedule`` gives ``alpha`` and ``sigma`` as functions of a real time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from calib.errors import CalibrationError, ModelError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

PredictionName = Literal["epsilon", "sample", "v_prediction", "score", "scaled_score", "flow"]
"""What an output means, for ``x = alpha * clean + sigma * noise``.

epsilon: noise. sample: clean. v_prediction: ``alpha * noise - sigma * clean`` (Salimans and Ho, 2022).
score: ``-noise / sigma`` (Song et al., 2021). scaled_score: ``sigma * score = -noise``.
flow: ``noise - clean`` (Lipman et al., 2023).
"""
Prediction = PredictionName | Callable[["Array", "Array"], tuple["Array", "Array"]]
"""A name, or a function of ``(alpha, sigma)`` that gives ``(a, b)`` with ``clean = a * x + b * out``."""
ALIASES: Mapping[str, PredictionName] = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
Spacing = Literal["leading", "trailing", "linspace"]


def read_prediction(prediction: str | Prediction, where: str = "prediction") -> Prediction:
    """The prediction by its name or alias.

    Raises:
        ModelError: an unknown name.
    """
    if not isinstance(prediction, str):
        return prediction
    name = ALIASES.get(prediction, prediction)
    for known in get_args(PredictionName):
        if name == known:
            return known  # type: ignore[no-any-return]
    names = ", ".join((*get_args(PredictionName), *ALIASES))
    raise ModelError(f"prediction_type {prediction!r} is not supported", where=where, mend=f"one of {names}")


def clean_and_noise(alpha: Array, sigma: Array, prediction: Prediction) -> tuple[Array, Array]:
    """Coefficients of (x, out) in the predicted clean image and in the predicted noise.

    Args:
        alpha: ``[T]`` signal share of ``x``.
        sigma: ``[T]`` noise share, > 0.
        prediction: what ``out`` means.

    Returns:
        Two arrays ``[T, 2]``; not finite where the output says nothing (the noise of a sample without signal).
    """
    zero, one = np.zeros_like(alpha), np.ones_like(alpha)
    with np.errstate(divide="ignore"):
        match prediction:
            case "epsilon":
                clean, noise = (1 / alpha, -sigma / alpha), (zero, one)
            case "sample":
                clean, noise = (zero, one), (1 / sigma, -alpha / sigma)
            case "v_prediction":
                power = alpha**2 + sigma**2
                clean, noise = (alpha / power, -sigma / power), (sigma / power, alpha / power)
            case "score":
                clean, noise = (1 / alpha, sigma**2 / alpha), (zero, -sigma)
            case "scaled_score":
                clean, noise = (1 / alpha, sigma / alpha), (zero, -one)
            case "flow":
                total = alpha + sigma
                clean, noise = (1 / total, -sigma / total), (1 / total, alpha / total)
            case _:
                a, b = prediction(alpha, sigma)
                clean, noise = (a, b), ((1 - alpha * a) / sigma, -alpha * b / sigma)
    return np.stack(clean, 1), np.stack(noise, 1)


@dataclass(frozen=True)
class NoiseSchedule:
    """The training noise schedule in discrete timesteps, and what diffusers' scheduler configuration says.

    Attributes:
        alphas_cumprod: float64 ``[train timesteps]``, the squared signal share of the marginal at each timestep.
        prediction: what the denoiser's output means.
        clip: bound of the predicted clean image in DDIM, DDPM and Heun, or None.
        final_alpha_is_one: DDIM's last step goes to the clean image, not to timestep 0.
        spacing, offset: how samplers pick their timesteps.
        rounds_karras: Karras timesteps of DPM-Solver++ are rounded (else truncated), as diffusers does but for the
            cosine schedule.
        variance: of DDPM's noise: the posterior's ("small") or the forward step's ("large").
    """

    alphas_cumprod: Array
    prediction: Prediction = "epsilon"
    clip: float | None = 1.0
    final_alpha_is_one: bool = True
    spacing: Spacing = "leading"
    offset: int = 0
    rounds_karras: bool = True
    variance: Literal["small", "large"] = "small"

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any], *, where: str = "scheduler_config.json") -> NoiseSchedule:
        """Read a diffusers scheduler configuration (DDPM, DDIM, DPMSolverMultistep, Euler, Heun, ...).

        Raises:
            ModelError: a schedule or setting that the tables cannot express.
        """
        prediction = read_prediction(config.get("prediction_type", "epsilon"), where)
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
            "large" if str(config.get("variance_type", "fixed_small")).startswith("fixed_large") else "small",
        )

    @classmethod
    def linear(cls, timesteps: int = 1000, first: float = 1e-4, last: float = 0.02) -> NoiseSchedule:
        """The schedule of DDPM (Ho et al., 2020)."""
        return cls.from_diffusers({"num_train_timesteps": timesteps, "beta_start": first, "beta_end": last})


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


def _same(value: Array) -> Array:
    return value


@dataclass(frozen=True)
class ContinuousSchedule:
    """A process in continuous time.

    Attributes:
        alpha, sigma: float64 functions of the time; ``sigma / alpha`` must grow with it.
        latest: the time that sampling starts from.
        earliest: the smallest time that the denoiser is asked about; the last step goes from there to no noise.
        prediction: what the denoiser's output means.
        denoiser_time: what the denoiser is called with at a time.
        input_scale: what the denoiser's input is multiplied by, a function of (alpha, sigma); None: nothing.
        clip: bound of the predicted clean image in DDIM, DDPM and Heun, or None.
        warp: applied to evenly spaced times before they are used.
    """

    alpha: Callable[[Array], Array]
    sigma: Callable[[Array], Array]
    latest: float = 1.0
    earliest: float = 1e-3
    prediction: Prediction = "epsilon"
    denoiser_time: Callable[[Array], Array] = _same
    input_scale: Callable[[Array, Array], Array] | None = None
    clip: float | None = None
    warp: Callable[[Array], Array] = _same

    def __post_init__(self) -> None:
        if not 0 <= self.earliest < self.latest:
            raise CalibrationError(f"times {self.earliest}..{self.latest}", where="ContinuousSchedule")
        grid = np.linspace(self.earliest, self.latest, 64)
        alpha, sigma = self.alpha(grid), self.sigma(grid)
        if not (np.isfinite(alpha).all() and np.isfinite(sigma).all() and (sigma > 0).all() and (alpha >= 0).all()):
            raise CalibrationError(
                "alpha or sigma is not finite, or sigma is 0", where="ContinuousSchedule", mend="raise `earliest`"
            )
        with np.errstate(divide="ignore"):
            if not (np.diff(sigma / alpha) > 0).all():
                raise CalibrationError("sigma / alpha must grow with the time", where="ContinuousSchedule")

    def times_of(self, ratios: Array) -> Array:
        """The times at which ``sigma / alpha`` is ``ratios`` (within the schedule's reach), by bisection."""
        low, high = np.full_like(ratios, self.earliest), np.full_like(ratios, self.latest)
        for _ in range(100):
            middle = (low + high) / 2
            with np.errstate(divide="ignore"):
                below = self.sigma(middle) / self.alpha(middle) < ratios
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return (low + high) / 2


Schedule = NoiseSchedule | ContinuousSchedule


def vp(
    integrated_beta: Callable[[Array], Array] | None = None,
    *,
    beta_min: float = 0.1,
    beta_max: float = 20.0,
    prediction: str | Prediction = "score",
    latest: float = 1.0,
    earliest: float = 1e-3,
    denoiser_time: Callable[[Array], Array] = _same,
) -> ContinuousSchedule:
    """The variance-preserving SDE (Song et al., 2021): ``alpha = exp(-B(t) / 2)``, ``sigma^2 = 1 - alpha^2``.

    Args:
        integrated_beta: ``B``; ``beta_min * t + (beta_max - beta_min) * t^2 / 2`` where None.
        beta_min: of the linear beta at time 0.
        beta_max: at time 1.
        prediction: of the network.
        latest: time of a sampler's first evaluation.
        earliest: time of its last.
        denoiser_time: what the network is called with at a time.
    """

    def linear(t: Array) -> Array:
        return beta_min * t + (beta_max - beta_min) * t**2 / 2

    integral = linear if integrated_beta is None else integrated_beta
    return ContinuousSchedule(
        lambda t: np.exp(-integral(t) / 2),
        lambda t: np.sqrt(-np.expm1(-integral(t))),
        latest,
        earliest,
        read_prediction(prediction),
        denoiser_time,
    )


def ve(
    sigma_min: float = 0.01,
    sigma_max: float = 50.0,
    *,
    prediction: str | Prediction = "score",
    time: Literal["unit", "sigma", "log_sigma"] = "unit",
) -> ContinuousSchedule:
    """The variance-exploding SDE (Song et al., 2021): no signal is lost, noise grows geometrically over t in [0, 1].

    Args:
        sigma_min: noise at time 0.
        sigma_max: noise at time 1.
        prediction: of the network.
        time: what the network is called with: t in [0, 1], sigma, or its natural logarithm.
    """

    def sigma(t: Array) -> Array:
        return sigma_min * (sigma_max / sigma_min) ** t

    seen = {"unit": _same, "sigma": sigma, "log_sigma": lambda t: np.log(sigma(t))}[time]
    return ContinuousSchedule(np.ones_like, sigma, 1.0, 0.0, read_prediction(prediction), seen)


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, sigma_data: float = 0.5) -> ContinuousSchedule:
    """A raw network ``F`` in the preconditioning of Karras et al. (2022), equation 7 and table 1.

    ``clean = c_skip(sigma) * x + c_out(sigma) * F(c_in(sigma) * x, log(sigma) / 4)``. For a network that already is
    preconditioned, ``D(x, sigma) -> clean``, use ``ve(..., prediction="sample", time="sigma")``.
    """

    def clean(alpha: Array, sigma: Array) -> tuple[Array, Array]:
        power = sigma**2 + sigma_data**2 * alpha**2
        return sigma_data**2 / power, sigma * sigma_data / np.sqrt(power)

    base = ve(sigma_min, sigma_max, prediction=clean, time="log_sigma")
    log_sigma = base.denoiser_time
    return dataclasses.replace(
        base,
        denoiser_time=lambda t: log_sigma(t) / 4,
        input_scale=lambda alpha, sigma: 1 / np.sqrt(sigma**2 + sigma_data**2 * alpha**2),
    )


def flow(shift: float = 1.0, timesteps: int = 1000, *, time_scale: float | None = None) -> ContinuousSchedule:
    """Rectified flow, ``x = (1 - t) * clean + t * noise``, timesteps as diffusers' FlowMatchEulerDiscreteScheduler.

    Args:
        shift: of the times towards noise (Esser et al., 2024, equation 23); 1 leaves them even.
        timesteps: that the network was trained on.
        time_scale: the network is called with ``time_scale * t``; ``timesteps`` where None.
    """

    def shifted(t: Array) -> Array:
        return shift * t / (1 + (shift - 1) * t)

    scale = float(timesteps if time_scale is None else time_scale)
    earliest = float(shifted(np.asarray(1 / timesteps)))
    return ContinuousSchedule(lambda t: 1 - t, _same, 1.0, earliest, "flow", lambda t: scale * t, warp=shifted)
