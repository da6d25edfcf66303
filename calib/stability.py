"""Temporal stability: how a model's layers change along a sampler, and where modulation pays.

``analyze`` runs the float model once forwards and backwards (``calib.adjoint``) and the modulated one once forwards,
on calibration seeds that the calibration itself has not seen. Errors are predicted to first order, as mean square
errors of the final image in which each layer counts alone; PSNR is on images in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import torch

from calib.adjoint import LayerSweep, Sweep, sweep
from calib.lattice import CODE_LIMIT
from calib.modulated import ModulatedModel, modulate
from calib.noise import noise_batch
from calib.plan import Mode, coarse_exponent
from calib.sampling import sample, start_generation

if TYPE_CHECKING:
    from calib.adapters import PretrainedModel
    from calib.calibration import Calibration
    from calib.samplers import Sampler

PEAK = 2.0
ONE_BIT_DB = 20 * math.log10(2)
"""What one more bit of a code gains."""

LONG_ENOUGH = 5
"""Steps from which on the anchor's extra pass is under a fifth of a job."""

STILL = 0.05
"""Relative change under which a layer at most steps hardly needs to run."""

FRESH_SEEDS = 500_000
"""Distance of the analysis' seeds from the calibration's."""


class Verdict(StrEnum):
    """What suits a layer."""

    DELTA = "delta"
    """Modulate it: its changes are at least one bit smaller than its values."""
    DIRECT = "direct"
    """Quantize its values: its changes are as large, state would be for nothing."""
    REUSE = "reuse"
    """Modulate it, and let it run at some steps only: it hardly changes at most of them."""


@dataclass(frozen=True)
class LayerStability:
    """One layer, one value a step where it says so (step 0 is the anchor's: its change is the value itself).

    Attributes:
        name: dotted, in the denoiser.
        macs: multiply-accumulates of a pass for one sample.
        state_bytes: of its lattice and accumulator for one sample, main plane.
        relative_change: root mean square of the input's change over that of the input, a step.
        lattice_bits: bits that the largest change takes on the layer's lattice, sign included, a step.
        saturated: share of elements that the modulated run clamped, a step.
        zero: share of elements whose code is zero, a step.
        sensitivity: mean square error of the image for independent errors of variance 1 in the input, a step.
        delta_psnr, direct_psnr: dB of the image if only this layer's activations were quantized, in one 8-bit pass at
            each step after the first, of their changes or of their values.
        verdict: what suits it.
    """

    name: str
    macs: int
    state_bytes: int
    relative_change: tuple[float, ...]
    lattice_bits: tuple[int, ...]
    saturated: tuple[float, ...]
    zero: tuple[float, ...]
    sensitivity: tuple[float, ...]
    delta_psnr: float
    direct_psnr: float
    verdict: Verdict


@dataclass(frozen=True)
class StabilityReport:
    """The model over one sampler.

    Attributes:
        model, sampler: names.
        steps: sampler steps.
        seeds: that were analyzed.
        layers: in the order of the calibration.
        step_sensitivity: mean square error of the image for errors of variance 1 in the denoiser's output, a step.
        delta_psnr, direct_psnr: dB if all activations were quantized so, weights left alone.
        pays: whether modulation does.
        reasons: why, for a person.
    """

    model: str
    sampler: str
    steps: int
    seeds: tuple[int, ...]
    layers: tuple[LayerStability, ...]
    step_sensitivity: tuple[float, ...]
    delta_psnr: float
    direct_psnr: float
    pays: bool
    reasons: tuple[str, ...]


def analyze(
    model: PretrainedModel,
    sampler: Sampler,
    calibration: Calibration,
    *,
    seeds: int = 4,
    probes: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> StabilityReport:
    """Analyze a calibrated model.

    Args:
        model: the float model that was calibrated.
        sampler: it was calibrated for.
        calibration: gives layers, lattices and exponents.
        seeds: how many noise seeds to run.
        probes: random directions of the sensitivities.
        progress: called with (steps done, steps in all).
    """
    first = calibration.config.first_seed + FRESH_SEEDS
    chosen = range(first, first + seeds)
    total = 3 * sampler.steps

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, total)

    names = list(calibration.layers)
    seen = sweep(model, sampler, chosen, layers=names, probes=probes, progress=lambda done, _: tell(done))
    saturated = _saturation(model, sampler, calibration, chosen, lambda i: tell(2 * sampler.steps + i + 1))
    layers = [_layer(name, seen.layers[name], calibration, saturated[name]) for name in names]
    return _report(model.name, sampler, tuple(chosen), layers, seen)


def psnr_of(square_error: float) -> float:
    """PSNR (dB) of a mean square error; infinite for none."""
    return 10 * math.log10(PEAK**2 / square_error) if square_error > 0 else math.inf


def code_error(step: float, exponent: int) -> float:
    """Mean square rounding error of a code with an exponent on a lattice of ``step``."""
    return (step * 2.0**exponent) ** 2 / 12


def exponents_for(changes: Sequence[float], step: float, largest: int) -> list[int]:
    """The smallest exponent whose codes reach each change, at most ``largest``."""
    reach = CODE_LIMIT * step
    return [min(largest, max(0, math.ceil(math.log2(change / reach)))) if change > 0 else 0 for change in changes]


def state_bytes(layer: LayerSweep) -> int:
    """Lattice (2 bytes an input) and accumulator (4 bytes an output) of one plane for one sample."""
    return 2 * layer.inputs + 4 * layer.outputs


def _layer(name: str, seen: LayerSweep, calibration: Calibration, saturated: Sequence[float]) -> LayerStability:
    weights, plan, values = calibration.layers[name], calibration.plan.layers[name], calibration.ranges[name]
    step, coarse = float(weights.step), coarse_exponent(weights.lattice_bits)
    exponents = exponents_for(seen.largest_change.tolist(), step, coarse)
    exponents[0] = coarse
    power = seen.power
    change = torch.cat([power[:1], seen.distance.diagonal(-1)])
    relative = (change / power.clamp(min=1e-30)).sqrt().clamp(max=1e3)
    moved = torch.cat([seen.samples[:1], seen.samples[1:] - seen.samples[:-1]]).abs()
    half = torch.tensor([0.5 * step * 2.0**k for k in exponents])
    delta = float(sum(code_error(step, k) * gain for k, gain in zip(exponents[1:], seen.input_gain[1:], strict=True)))
    # Ordinary quantization reaches what was observed, without the lattice's headroom.
    reach = max(map(abs, values)) / CODE_LIMIT
    direct = float(code_error(reach, 0) * seen.input_gain[1:].sum())
    verdict = Verdict.DELTA
    if plan.mode is Mode.DIRECT or direct < 4 * delta:
        verdict = Verdict.DIRECT
    elif float(relative[1:].median()) < STILL:
        verdict = Verdict.REUSE
    return LayerStability(
        name,
        seen.macs,
        state_bytes(seen),
        tuple(relative.tolist()),
        tuple(8 + k for k in exponents),
        tuple(saturated),
        tuple((moved < half[:, None]).double().mean(1).tolist()),
        tuple(seen.input_gain.tolist()),
        psnr_of(delta),
        psnr_of(direct),
        verdict,
    )


def _report(
    model: str, sampler: Sampler, seeds: tuple[int, ...], layers: list[LayerStability], seen: Sweep
) -> StabilityReport:
    def together(levels: Sequence[float]) -> float:
        return psnr_of(sum(PEAK**2 * 10 ** (-level / 10) for level in levels))

    delta, direct = together([layer.delta_psnr for layer in layers]), together([layer.direct_psnr for layer in layers])
    work = max(1, sum(layer.macs for layer in layers))
    change = sum(layer.macs * _mean(layer.relative_change[1:]) for layer in layers) / work
    gain = delta - direct if math.isfinite(direct) else 0.0
    reasons = [
        f"from step to step a layer's input changes by {change:.0%} of itself (mean, weighted by work)",
        f"8-bit codes of changes instead of values gain {gain:.1f} dB ({gain / ONE_BIT_DB:.1f} bits)",
    ]
    small_gain, short = gain < ONE_BIT_DB, sampler.steps < LONG_ENOUGH
    if small_gain:
        reasons.append("less than one bit: changes are about as large as values, quantize the values directly")
    if short:
        reasons.append(f"the anchor's second pass is {1 / sampler.steps:.0%} of a job of {sampler.steps} steps")
    return StabilityReport(
        model,
        sampler.name,
        sampler.steps,
        seeds,
        tuple(layers),
        tuple(seen.step_gain.tolist()),
        delta,
        direct,
        not (small_gain or short),
        tuple(reasons),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _saturation(
    model: PretrainedModel,
    sampler: Sampler,
    calibration: Calibration,
    seeds: Sequence[int],
    done: Callable[[int], None],
) -> dict[str, list[float]]:
    """Share of clamped elements by layer, a step, in a run of the modulated model."""
    modulated: ModulatedModel = modulate(model, calibration)
    shares: dict[str, list[float]] = {name: [] for name in modulated.layers}
    before = dict.fromkeys(modulated.layers, (0, 0))

    def on_step(i: int, _: torch.Tensor) -> None:
        for name, layer in modulated.layers.items():
            saturated, elements = layer.counts.saturated - before[name][0], layer.counts.elements - before[name][1]
            shares[name].append(saturated / elements if elements else 0.0)
            before[name] = layer.counts.saturated, layer.counts.elements
        done(i)

    x = start_generation(sampler, noise_batch(seeds, model.sample_shape))
    conditions = model.example_conditions(len(seeds))
    sample(modulated, sampler, x, on_step=on_step, seeds=seeds, conditions=conditions)
    return shares
