"""How near a quantized model comes to its float original, beside what else the same cost would buy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from calib.baselines import static_int8
from calib.calibration import Calibration, CalibrationConfig, calibrate
from calib.errors import CalibrationError
from calib.modulated import ModulatedModel, modulate
from calib.noise import noise_batch
from calib.plan import LayerPlan, Plan
from calib.samplers import Sampler, build_sampler
from calib.sampling import Denoiser, sample, start_generation, to_pixels

if TYPE_CHECKING:
    from calib.models import PretrainedModel

PEAK = 2.0
BATCH = 4
INT8_PER_FP32 = 4
"""INT8 MACs that a Cortex-A76 does in the time of one in FP32 (307 against 77 GMAC/s on four cores)."""

Tell = Callable[[str, int, int], None]
"""``(what is running, steps done, steps in all)``."""


@dataclass(frozen=True)
class Row:
    """One way to make the images.

    Attributes:
        name: of the way.
        steps: sampler steps.
        psnr_mean, psnr_min: dB against the reference over the seeds; infinite for the reference itself.
        same_pixels: share of 8-bit pixels equal to the reference's.
        passes: INT8 passes a step, averaged over layers and steps, residual passes included; None in float.
        saturated: share of quantized changes that were clamped; None where nothing is.
    """

    name: str
    steps: int
    psnr_mean: float
    psnr_min: float
    same_pixels: float
    passes: float | None = None
    saturated: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """The table and what it was made with."""

    model: str
    sampler: str
    seeds: int
    rows: tuple[Row, ...]


def psnr(a: torch.Tensor, b: torch.Tensor, peak: float = PEAK) -> torch.Tensor:
    """Peak signal-to-noise ratio of each batch entry, both clamped to [-1, 1] first.

    Args:
        a: float32 ``[N, ...]``.
        b: the same.
        peak: of the signal; 2 for images in [-1, 1].

    Returns:
        float64 ``[N]``, dB; infinite where they are equal.
    """
    error = (a.clamp(-1, 1).double() - b.clamp(-1, 1).double()).square().flatten(1).mean(1)
    return 10 * torch.log10(peak**2 / error)


def evaluate(
    model: PretrainedModel,
    sampler: Sampler,
    config: CalibrationConfig | None = None,
    *,
    seeds: int = 16,
    calibration: Calibration | None = None,
    progress: Tell | None = None,
) -> Evaluation:
    """Calibrate, then generate from seeds ``0 .. seeds-1`` in every way and compare with the float model.

    Args:
        model: the pretrained model.
        sampler: for all rows but the one with fewer steps.
        config: of the calibration; must keep a residual plane.
        seeds: how many to evaluate; none may be among the calibration's.
        calibration: where it exists already; made here where None.
        progress: called after each sampler step.

    Raises:
        CalibrationError: seeds that calibration has seen, or none; a calibration of something else.
    """
    config = config if config is not None else CalibrationConfig()
    if not 1 <= seeds <= config.first_seed:
        raise CalibrationError(f"{seeds} evaluation seeds", mend=f"use 1..{config.first_seed}, below the calibration's")
    tell = progress if progress is not None else lambda *_: None
    if calibration is None:
        calibration = calibrate(model, sampler, config, lambda done, total: tell("calibration", done, total))
    _check_fits(calibration, model, sampler)
    noise = noise_batch(range(seeds), model.sample_shape)

    def run(name: str, denoiser: Denoiser, with_sampler: Sampler = sampler) -> torch.Tensor:
        return _generate(denoiser, with_sampler, noise, lambda done, total: tell(name, done, total))

    reference = run("FP32", model.denoiser)
    plain = modulate(model.denoiser, without_residual(calibration))
    full = modulate(model.denoiser, calibration)
    plain_counts, full_counts = _Counter(plain), _Counter(full)
    outputs = {
        "static INT8 PTQ": run("static INT8 PTQ", static_int8(model.denoiser, calibration.ranges)),
        "modulated INT8": run("modulated INT8", plain_counts),
        "modulated INT8 + residual plane": run("modulated INT8 + residual plane", full_counts),
    }
    rows = [_row("FP32", sampler.steps, reference, reference)]
    for steps in fewer_steps(sampler.steps, full_counts.passes(sampler.steps)):
        name = f"FP32, {steps} steps"
        rows.append(
            _row(name, steps, run(name, model.denoiser, build_sampler(sampler.name, steps, model.schedule)), reference)
        )
    for name, images in outputs.items():
        rows.append(_row(name, sampler.steps, images, reference))
    for i, counter in ((-2, plain_counts), (-1, full_counts)):
        rows[i] = dataclasses.replace(
            rows[i], passes=counter.passes(sampler.steps), saturated=counter.saturated / max(1, counter.elements)
        )
    return Evaluation(model.name, sampler.name, seeds, tuple(rows))


def _check_fits(calibration: Calibration, model: PretrainedModel, sampler: Sampler) -> None:
    """Refuse a calibration of something else than what it is used with."""
    for what, made_for, used_with in (
        ("model", calibration.model_hash, model.content_hash),
        ("sampler", calibration.sampler, sampler.name),
        ("steps", f"{calibration.plan.steps} steps", f"{sampler.steps} steps"),
    ):
        if made_for != used_with:
            raise CalibrationError(
                f"the calibration was made for {made_for}, not for {used_with}", where=what, mend="calibrate anew"
            )


def fewer_steps(steps: int, passes: float) -> list[int]:
    """FP32 step counts to compare with: half the steps, and what the INT8 passes cost in FP32 steps."""
    equal_cost = round(steps * passes / INT8_PER_FP32)
    return sorted({max(1, steps // 2), max(1, min(steps, equal_cost))}, reverse=True)


def without_residual(calibration: Calibration) -> Calibration:
    """The same calibration with no residual pass anywhere."""

    def strip(layer: LayerPlan) -> LayerPlan:
        rows = tuple(dataclasses.replace(row, residual_exponents=()) for row in layer.rows)
        return dataclasses.replace(layer, rows=rows, anchor=dataclasses.replace(layer.anchor, residual_exponents=()))

    layers = {name: strip(layer) for name, layer in calibration.plan.layers.items()}
    return dataclasses.replace(calibration, plan=Plan(calibration.plan.steps, layers))


class _Counter:
    """A modulated model that remembers its counts over several jobs."""

    def __init__(self, model: ModulatedModel) -> None:
        self.model = model
        self.saturated = self.elements = self.ran = self.jobs = 0

    def reset(self) -> None:
        self.take()
        self.model.reset()
        self.jobs += 1

    def take(self) -> None:
        counts = self.model.counts()
        self.saturated += counts.saturated
        self.elements += counts.elements
        self.ran += counts.passes + counts.residual_passes

    def set_step(self, i: int) -> None:
        self.model.set_step(i)

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.model(x, t)
        return out

    def passes(self, steps: int) -> float:
        """Passes a step and layer, residual ones included."""
        return self.ran / (self.jobs * steps * len(self.model.layers))


def _generate(
    denoiser: Denoiser, sampler: Sampler, noise: torch.Tensor, tell: Callable[[int, int], None]
) -> torch.Tensor:
    """Images of all noises, a few at a time so that the activations stay in the cache."""
    parts: list[torch.Tensor] = []
    batches: Sequence[torch.Tensor] = torch.split(noise, BATCH)
    for k, batch in enumerate(batches):

        def on_step(i: int, _: torch.Tensor, *, before: int = k * sampler.steps) -> None:
            tell(before + i + 1, len(batches) * sampler.steps)

        parts.append(sample(denoiser, sampler, start_generation(sampler, batch), on_step=on_step))
    if isinstance(denoiser, _Counter):
        denoiser.take()
    return torch.cat(parts)


def _row(name: str, steps: int, images: torch.Tensor, reference: torch.Tensor) -> Row:
    decibels = psnr(images, reference)
    same = (to_pixels(images) == to_pixels(reference)).double().mean()
    return Row(name, steps, float(decibels.mean()), float(decibels.min()), float(same))
