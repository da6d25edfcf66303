"""Calibration: from a pretrained model and a sampler to integers, scales and a plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from calib.documents import to_document
from calib.errors import CalibrationError
from calib.novelty import NoveltyTable, novelty_table
from calib.observe import LayerObservation, observe
from calib.operators import bias_of, operator_of, weight_of
from calib.plan import Plan, uniform_plan
from calib.ranges import Largest, RangeMethod
from calib.scales import choose_exponents, lattice_step
from calib.support import nothing_to_modulate, survey
from calib.weights import (
    MAX_LATTICE_BITS,
    MIN_LATTICE_BITS,
    LayerWeights,
    WeightMethod,
    corrected_bias,
    lattice_bits,
    quantize_weight,
)
from calib.weights.moments import InputMoments, observe_moments

if TYPE_CHECKING:
    from torch import nn

    from calib.models import PretrainedModel
    from calib.samplers import Sampler

ALGORITHM = 2
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
        weights: how weights become integers.
        changes: how far the one pass of a step reaches.
    """

    seeds: int = 12
    first_seed: int = 1_000_000
    lattice_bits: int = 14
    range_headroom: float = 2.0
    exact_share: float = 0.0015
    residual_every: int | None = 10
    batch: int = 4
    weights: WeightMethod = field(default_factory=WeightMethod)
    changes: RangeMethod = field(default_factory=Largest)

    @property
    def observed_seeds(self) -> range:
        """The noise seeds that calibration looks at; evaluation must not."""
        return range(self.first_seed, self.first_seed + self.seeds)

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
        novelty: what images look like; None where too few were seen.
    """

    config: CalibrationConfig
    model_hash: str
    sampler: str
    plan: Plan
    layers: Mapping[str, LayerWeights]
    ranges: Mapping[str, tuple[float, float]]
    float_layers: Mapping[str, str]
    content_hash: str
    novelty: NoveltyTable | None = None


def calibration_key(model: PretrainedModel, sampler: Sampler, config: CalibrationConfig) -> str:
    """SHA-256 (hex) over everything that decides a calibration: the key of a cache of them."""
    tables = (sampler.coefficients, sampler.timesteps, sampler.input_scale, sampler.start_coefficients)
    table = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tables)).hexdigest()
    document = [
        ALGORITHM,
        model.content_hash,
        sampler.name,
        sampler.steps,
        sampler.clip,
        table,
        to_document(config),
        None if model.references is None else hashlib.sha256(model.references.numpy().tobytes()).hexdigest(),
    ]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def check_made_for(
    calibration: Calibration, model: PretrainedModel, sampler: Sampler | None = None, *, where: str
) -> None:
    """Refuse a calibration of something else than what it is used with.

    Args:
        calibration: to use.
        model: to use it with.
        sampler: the same; None = the calibration's own.
        where: it comes from, for the error.

    Raises:
        CalibrationError: says what it was made for.
    """
    pairs = [(f"model {calibration.model_hash}", f"model {model.content_hash}", "give the model that it was made for")]
    if sampler is not None:
        own = f"{calibration.sampler} with {calibration.plan.steps} evaluations"
        other = f"{sampler.name} with {sampler.steps} evaluations"
        pairs.append((own, other, "give the --sampler and --steps that it was made for"))
    for made_for, used_with, mend in pairs:
        if made_for != used_with:
            raise CalibrationError(
                f"the calibration was made for {made_for}, not for {used_with}",
                where=where,
                mend=f"{mend}, or calibrate anew",
            )


def with_references(calibration: Calibration, references: torch.Tensor) -> Calibration:
    """The calibration with other pictures of what is not strange, and the content hash that belongs to them.

    Args:
        calibration: a model's.
        references: float32 ``[N, C, H, W]`` in [-1, 1].
    """
    seen = hashlib.sha256(references.numpy().tobytes()).hexdigest()
    digest = hashlib.sha256(f"{calibration.content_hash}\n{seen}".encode()).hexdigest()
    return replace(calibration, novelty=novelty_table(references), content_hash=digest)


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
    What images look like (``calib.novelty``) is learned from the model's references, else from what it generates here.
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
    support = survey(model)
    generated: list[torch.Tensor] = []
    observations = observe(
        model,
        sampler,
        support.modulated,
        config.observed_seeds,
        batch=config.batch,
        progress=progress,
        on_images=generated.append,
    )
    moments = gather_moments(model, sampler, config, observations)
    made = assemble(model, sampler, config, observations, float_layers=support.float_layers, moments=moments)
    references = model.references if model.references is not None else torch.cat(generated)
    return replace(made, novelty=novelty_table(references))


def gather_moments(
    model: PretrainedModel, sampler: Sampler, config: CalibrationConfig, observations: Mapping[str, LayerObservation]
) -> dict[str, InputMoments]:
    """What the configured weight method wants to know of the layers' inputs; nothing where it looks at none."""
    method = config.weights
    if not method.looks_at_inputs:
        return {}
    names = [name for name, seen in observations.items() if not seen.depends_on_time_only]
    seeds = config.observed_seeds[: method.input_seeds]
    return observe_moments(
        model, sampler, seeds, names=names, every=method.input_every, second=method.looks_at_second_moments
    )


def assemble(
    model: PretrainedModel,
    sampler: Sampler,
    config: CalibrationConfig,
    observations: Mapping[str, LayerObservation],
    *,
    float_layers: Mapping[str, str],
    moments: Mapping[str, InputMoments],
) -> Calibration:
    """Choose integers, scales and the uniform plan from what was observed.

    Args:
        model: the pretrained model.
        sampler: that the observations were made with.
        config: settings.
        observations: by layer name.
        float_layers: linear layers that cannot be modulated, with the reason.
        moments: by layer name, where the weight method looks at inputs.

    Raises:
        CalibrationError: no layer to modulate, or one that overflows.
    """
    left = dict(float_layers)
    left |= {name: TIMESTEP_ONLY for name, seen in observations.items() if seen.depends_on_time_only}
    chosen = {name: seen for name, seen in observations.items() if name not in left}
    if not chosen:
        raise CalibrationError(nothing_to_modulate(left), where=model.name)
    modules = dict(model.denoiser.named_modules())
    layers = {name: _quantize(name, modules[name], seen, config, moments.get(name)) for name, seen in chosen.items()}
    exponents = {
        name: choose_exponents(seen, layers[name].step, layers[name].lattice_bits, config.changes)
        for name, seen in chosen.items()
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
        left,
        calibration_key(model, sampler, config),
    )


def _quantize(
    name: str, module: nn.Module, seen: LayerObservation, config: CalibrationConfig, moments: InputMoments | None
) -> LayerWeights:
    """Integers and lattice of one layer."""
    operator, _ = operator_of(module)
    try:
        weight, method = weight_of(module), config.weights
        main, residual, scale = quantize_weight(operator, weight, method, moments)
        bias = corrected_bias(
            operator, weight, bias=bias_of(module), main=main, scale=scale, method=method, moments=moments
        )
        bits = lattice_bits(operator, main, residual, wanted=config.lattice_bits)
        step = lattice_step(seen.largest, bits, config.range_headroom)
    except CalibrationError as error:
        raise CalibrationError(error.what, where=name, mend=error.mend) from error
    return LayerWeights(main, residual, scale, bias, step, bits)
