"""Calibration: from a pretrained model and a sampler to integers, scales and a plan."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calib.errors import CalibrationError
from calib.observe import LayerObservation, linear_layers, observe
from calib.operators import bias_of, operator_of, weight_of
from calib.plan import Plan, uniform_plan
from calib.scales import choose_exponents, lattice_step
from calib.weights import MAX_LATTICE_BITS, MIN_LATTICE_BITS, LayerWeights, lattice_bits, quantize_weight

if TYPE_CHECKING:
    from torch import nn

    from calib.models import PretrainedModel
    from calib.samplers import Sampler

ALGORITHM = 1
"""Raise it when the same settings would calibrate to something else, so that no cache gives the old result."""

TIMESTEP_ONLY = "depends on the timestep only"


@dataclass(frozen=True)
class CalibrationConfig:
    """What decides a calibration, besides model and sampler.

    Attributes:
        seeds: how many noise seeds are observed, at least 2. More of them find rarer changes: the worst image gains
            (4 dB from 4 seeds to 12 on the demo model), the others lose under 1 dB to wider codes.
        first_seed: the first of them; far from the seeds that people evaluate with.
        lattice_bits: ``L`` where int32 has room for it, 8..16.
        range_headroom: lattice range over the observed range, >= 1.
        exact_share: layers with at most this share of the model's MACs do two passes at every step.
        residual_every: steps from one residual pass to the next; 0 = at the anchor only, None = no residual plane.
        batch: seeds that run together, at least 2 (they are compared with each other).
    """

    seeds: int = 12
    first_seed: int = 1_000_000
    lattice_bits: int = 14
    range_headroom: float = 2.0
    exact_share: float = 0.0015
    residual_every: int | None = 10
    batch: int = 4

    def __post_init__(self) -> None:
        def check(holds: bool, key: str, mend: str) -> None:
            if not holds:
                raise CalibrationError(f"{key} = {getattr(self, key)!r}", where="CalibrationConfig", mend=mend)

        check(self.seeds >= 2, "seeds", "use at least 2")
        check(self.first_seed >= 0, "first_seed", "use 0 or more")
        bits = f"use {MIN_LATTICE_BITS}..{MAX_LATTICE_BITS}"
        check(MIN_LATTICE_BITS <= self.lattice_bits <= MAX_LATTICE_BITS, "lattice_bits", bits)
        check(1 <= self.range_headroom <= 16, "range_headroom", "use 1..16")
        check(0 <= self.exact_share <= 1, "exact_share", "use 0..1")
        check(self.residual_every is None or self.residual_every >= 0, "residual_every", "use None or 0 and more")
        check(self.batch >= 2, "batch", "use at least 2")


@dataclass(frozen=True)
class Calibration:
    """A calibrated model, without the float one.

    Attributes:
        config: the settings.
        model_hash: ``PretrainedModel.content_hash`` of the model.
        sampler: name of the sampler; its steps are ``plan.steps``.
        plan: of every modulated layer.
        layers: integers and scales, by layer name.
        ranges: (lowest, highest) input observed, by layer name.
        float_layers: linear layers that stay in floating point, with the reason.
        content_hash: ``calibration_key`` of what it was made from.
    """

    config: CalibrationConfig
    model_hash: str
    sampler: str
    plan: Plan
    layers: Mapping[str, LayerWeights]
    ranges: Mapping[str, tuple[float, float]]
    float_layers: Mapping[str, str]
    content_hash: str


def calibration_key(model: PretrainedModel, sampler: Sampler, config: CalibrationConfig) -> str:
    """SHA-256 (hex) over everything that decides a calibration: the key of a cache of them."""
    table = hashlib.sha256(sampler.coefficients.numpy().tobytes() + sampler.timesteps.numpy().tobytes()).hexdigest()
    document = [
        ALGORITHM,
        model.content_hash,
        sampler.name,
        sampler.steps,
        sampler.clip,
        table,
        dataclasses.asdict(config),
    ]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def calibrate(
    model: PretrainedModel,
    sampler: Sampler,
    config: CalibrationConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Observe the float model and choose its integers, scales and uniform plan. Deterministic.

    Layers whose input is the same for every seed see the timestep only; they stay in floating point (they are
    a thousandth of the work, and the time embedding's accuracy reaches every block).

    The lattice spans twice the observed range, for which it has one bit more than the measured 13: an input that
    leaves the lattice stays wrong for as long as it is outside (a real defect, a pixel no calibration seed had).
    The smallest layers, above all the first and the last one, never lag behind either: two passes cost them nothing.

    Args:
        model: the pretrained model.
        sampler: what the device will run.
        config: settings; the defaults where None.
        progress: called with (steps done, steps in all) while the model is observed.

    Raises:
        CalibrationError: a model without a layer to modulate, or one that overflows.
    """
    config = config if config is not None else CalibrationConfig()
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    observations = observe(model.denoiser, sampler, model.sample_shape, seeds, batch=config.batch, progress=progress)
    _, float_layers = linear_layers(model.denoiser)
    float_layers |= {name: TIMESTEP_ONLY for name, seen in observations.items() if not seen.depends_on_sample}
    chosen = {name: seen for name, seen in observations.items() if name not in float_layers}
    if not chosen:
        raise CalibrationError("the model has no layer to modulate", where=model.name)
    modules = dict(model.denoiser.named_modules())
    layers = {name: _quantize(name, modules[name], seen, config) for name, seen in chosen.items()}
    exponents = {
        name: choose_exponents(seen, layers[name].step, layers[name].lattice_bits) for name, seen in chosen.items()
    }
    budget = config.exact_share * sum(seen.macs for seen in chosen.values())
    plan = uniform_plan(
        exponents,
        {name: layer.lattice_bits for name, layer in layers.items()},
        residual_every=config.residual_every,
        always_exact={name for name, seen in chosen.items() if seen.macs <= budget},
    )
    return Calibration(
        config,
        model.content_hash,
        sampler.name,
        plan,
        layers,
        {name: (seen.lowest, seen.highest) for name, seen in chosen.items()},
        float_layers,
        calibration_key(model, sampler, config),
    )


def _quantize(name: str, module: nn.Module, seen: LayerObservation, config: CalibrationConfig) -> LayerWeights:
    """Integers and lattice of one layer."""
    operator, _ = operator_of(module)
    try:
        main, residual, scale = quantize_weight(operator, weight_of(module))
        bits = lattice_bits(operator, main, residual, wanted=config.lattice_bits)
        step = lattice_step(seen.largest, bits, config.range_headroom)
    except CalibrationError as error:
        raise CalibrationError(error.what, where=name, mend=error.mend) from error
    return LayerWeights(main, residual, scale, bias_of(module), step, bits)
