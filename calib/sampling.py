"""Running a sampler: from noise to an image, or from a real image back to itself (inspection)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch

from calib.errors import CalibrationError
from calib.noise import noise_batch
from calib.samplers import History

if TYPE_CHECKING:
    import numpy.typing as npt

    from calib.samplers import Sampler

Denoiser = Callable[..., torch.Tensor]
"""``(x float32 [N, C, H, W], timestep scalar, *conditions) -> out float32 [N, C, H, W]``."""


@runtime_checkable
class Stateful(Protocol):
    """A denoiser that carries state over a job, such as ``calib.modulated.ModulatedModel``."""

    def reset(self) -> None:
        """Start another job."""

    def set_step(self, i: int) -> None:
        """Say which sampler step comes."""


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    sampler: Sampler,
    x: torch.Tensor,
    start: int = 0,
    on_step: Callable[[int, torch.Tensor], None] | None = None,
    *,
    seeds: Sequence[int] | None = None,
    conditions: Mapping[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Run steps ``start .. T-1``.

    Args:
        denoiser: float or modulated; one with state is reset and told each step.
        sampler: the tables.
        x: float32 ``[N, C, H, W]``, the sample at the input of step ``start``.
        start: first step to run.
        on_step: called after each step with its index and the new sample.
        seeds: one for each of the N, of the noise that steps add; needed where the sampler draws noise.
        conditions: the denoiser's further inputs by name, ``[N, ...]`` each, or ``[1, ...]`` for all N alike.

    Returns:
        float32, the shape of ``x``: the image, nominally in [-1, 1], not clamped.

    Raises:
        CalibrationError: ``start`` out of range; seeds or conditions that are missing or do not fit.
    """
    if not 0 <= start < sampler.steps:
        raise CalibrationError(f"start step {start} out of range", mend=f"use 0..{sampler.steps - 1}")
    if seeds is not None and len(seeds) != len(x):
        raise CalibrationError(f"{len(seeds)} seeds for {len(x)} samples", mend="give one each")
    inputs = condition_inputs(denoiser, conditions, len(x))
    stateful = denoiser if isinstance(denoiser, Stateful) else None
    if stateful is not None:
        stateful.reset()
    before = History.empty(x)
    for i in range(start, sampler.steps):
        if stateful is not None:
            stateful.set_step(i)
        out = denoiser(sampler.denoiser_input(i, x), sampler.timesteps[i], *inputs)
        fresh = step_noise(sampler, seeds, x, i)
        x, before = sampler.advance(i, x, out, before, first=i == start, noise=fresh)
        if on_step is not None:
            on_step(i, x)
    return x


def step_noise(sampler: Sampler, seeds: Sequence[int] | None, x: torch.Tensor, i: int) -> torch.Tensor | None:
    """The noise that step ``i`` adds to ``x``, or None where the sampler draws none.

    Raises:
        CalibrationError: the sampler draws noise and there are no seeds.
    """
    if not sampler.draws_noise:
        return None
    if seeds is None:
        raise CalibrationError(f"{sampler.name} draws noise at each step", where="sampler", mend="give `seeds`")
    return noise_batch(seeds, x.shape[1:], draw=i + 1)


def condition_inputs(
    denoiser: object, conditions: Mapping[str, torch.Tensor] | None, batch: int
) -> tuple[torch.Tensor, ...]:
    """The conditions in the denoiser's order, one entry for each sample of the batch.

    Args:
        denoiser: its attribute ``condition_names`` says what it takes; nothing where it has none.
        conditions: by name, ``[batch, ...]`` or ``[1, ...]``.
        batch: number of samples.

    Raises:
        CalibrationError: a condition is missing, unknown or of another batch.
    """
    names: tuple[str, ...] = getattr(denoiser, "condition_names", ())
    given = dict(conditions or {})
    if set(given) != set(names):
        odd = ", ".join(sorted(set(given) ^ set(names)))
        takes = ", ".join(names) if names else "none"
        raise CalibrationError(f"conditions missing or unknown: {odd}", mend=f"the model takes {takes}")
    for name, tensor in given.items():
        if len(tensor) not in {1, batch}:
            raise CalibrationError(f"{len(tensor)} entries for {batch} samples", where=f"condition {name}")
    return tuple(given[name].expand(batch, *given[name].shape[1:]) for name in names)


def to_float(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """8-bit pixels to [-1, 1]: ``fl(fl(u / 127.5) - 1)``."""
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_pixels(image: torch.Tensor) -> torch.Tensor:
    """[-1, 1] to 8-bit pixels, clamped and rounded to nearest even."""
    return ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def start_generation(sampler: Sampler, noise: torch.Tensor) -> torch.Tensor:
    """The sample that step 0 starts from: ``initial_sigma * noise``."""
    return torch.tensor(sampler.initial_sigma, dtype=torch.float32) * noise


def start_inspection(sampler: Sampler, image: torch.Tensor, noise: torch.Tensor, start: int) -> torch.Tensor:
    """A real image noised to the input of step ``start``: ``fl(fl(alpha * image) + fl(sigma * noise))``.

    Args:
        sampler: the tables.
        image: float32 in [-1, 1], ``[N, C, H, W]``.
        noise: float32, the same shape.
        start: 0..T-1.

    Raises:
        CalibrationError: ``start`` out of range, or shapes that differ.
    """
    if not 0 <= start < sampler.steps:
        raise CalibrationError(f"start step {start} out of range", mend=f"use 0..{sampler.steps - 1}")
    if image.shape != noise.shape:
        raise CalibrationError(f"image {tuple(image.shape)} and noise {tuple(noise.shape)} differ in shape")
    alpha, sigma = sampler.start_coefficients[start]
    noised: torch.Tensor = alpha * image + sigma * noise
    return noised
