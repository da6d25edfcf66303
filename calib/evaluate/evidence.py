"""What an evaluation's ways are quantized with: everything observed of the float model, on calibration seeds only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calib.inputs import look_at_inputs
from calib.observe import LayerObservation, observe
from calib.ranges import ValueHistogram
from calib.support import survey
from calib.weights.moments import InputMoments, observe_moments

if TYPE_CHECKING:
    import torch
    from torch import nn

    from calib.adapters import PretrainedModel
    from calib.calibration import CalibrationConfig
    from calib.samplers import Sampler
    from calib.weights import WeightMethod

VALUE_SEEDS = 4
"""Calibration seeds whose inputs fill the histograms of the static baselines."""


@dataclass(frozen=True)
class Evidence:
    """Observations of one model under one sampler.

    Attributes:
        observations: by layer name.
        float_layers: linear layers that cannot be modulated, with the reason.
        values: signed histograms of the modulated layers' inputs.
        moments: of the modulated layers' inputs, where a weight method wants them.
    """

    observations: Mapping[str, LayerObservation]
    float_layers: Mapping[str, str]
    values: Mapping[str, ValueHistogram]
    moments: Mapping[str, InputMoments]

    @property
    def macs(self) -> dict[str, int]:
        """Multiply-accumulates of each observed layer for one sample and step."""
        return {name: seen.macs for name, seen in self.observations.items()}

    @property
    def changes(self) -> dict[str, torch.Tensor]:
        """int64 ``[T, BINS]`` of each observed layer."""
        return {name: seen.changes for name, seen in self.observations.items()}


def gather(
    model: PretrainedModel,
    sampler: Sampler,
    config: CalibrationConfig,
    methods: tuple[WeightMethod, ...],
    tell: Callable[[str, int, int], None],
) -> Evidence:
    """Observe the float model for an evaluation.

    Args:
        model: the float model.
        sampler: of the ways that share one.
        config: whose seeds to use.
        methods: weight methods that will be compared.
        tell: called with what runs, steps done, steps in all.
    """
    support = survey(model)
    observations = observe(
        model,
        sampler,
        support.modulated,
        config.observed_seeds,
        batch=config.batch,
        progress=lambda done, total: tell("observing changes", done, total),
    )
    names = [name for name, seen in observations.items() if not seen.depends_on_time_only]
    values: dict[str, ValueHistogram] = {name: ValueHistogram() for name in names}

    def look(name: str, _: nn.Module, x: torch.Tensor) -> None:
        values[name].see(x)

    seeds = config.observed_seeds[:VALUE_SEEDS]
    look_at_inputs(
        model, sampler, seeds, look, names=names, progress=lambda done, total: tell("observing values", done, total)
    )
    lookers = [method for method in methods if method.looks_at_inputs]
    moments: dict[str, InputMoments] = {}
    if lookers:
        moments = observe_moments(
            model,
            sampler,
            config.observed_seeds[: max(method.input_seeds for method in lookers)],
            names=names,
            every=min(method.input_every for method in lookers),
            second=any(method.looks_at_second_moments for method in lookers),
            progress=lambda done, total: tell("observing moments", done, total),
        )
    return Evidence(observations, support.float_layers, values, moments)
