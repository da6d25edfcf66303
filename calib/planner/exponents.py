"""How far a pass must reach under a schedule: changes are then from one step at which a layer runs to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calib.modulated import ModulatedModel
from calib.observe import observe
from calib.reuse import ReusePoint
from calib.scales import choose_exponents

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from calib.adapters import PretrainedModel
    from calib.calibration import Calibration
    from calib.plan import Plan, PointPlan
    from calib.samplers import Sampler


def never_lags(plan: Plan, live: Mapping[str, Sequence[int]]) -> bool:
    """Whether every layer runs at every step, as it does in a plan that has a pass in every row."""
    everywhere = all(len(steps) == plan.steps for steps in live.values())
    return everywhere and all(row.exponents for layer in plan.layers.values() for row in layer.rows)


def least_exponents(calibration: Calibration) -> dict[str, tuple[int, ...]]:
    """By layer, what the calibration takes from one step to the next; 0 where its plan has no pass."""
    layers = calibration.plan.layers
    return {name: tuple(max(row.exponents[:1], default=0) for row in layers[name].rows) for name in layers}


def exponents_under(
    model: PretrainedModel,
    sampler: Sampler,
    calibration: Calibration,
    points: Mapping[str, PointPlan],
    live: Mapping[str, Sequence[int]],
    *,
    seeds: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, tuple[int, ...]]:
    """By layer, the exponent of one pass a step, for changes from one live step to the next.

    They reach what was observed on a few seeds under the schedule, and at least what the calibration, which saw more
    seeds, takes from one step to the next.

    Args:
        model: the float model that was calibrated.
        sampler: it was calibrated for.
        calibration: its integers and its plan.
        points: the schedule's reuse points.
        live: by layer name, the steps at which it runs.
        seeds: of the noise, of those that the calibration saw.
        progress: called with (steps done, steps in all).
    """
    layers, least = calibration.layers, least_exponents(calibration)
    observations = observe(
        model,
        sampler,
        list(layers),
        seeds,
        batch=calibration.config.batch,
        progress=progress,
        denoiser=ModulatedModel(model.denoiser, {}, {name: ReusePoint(point) for name, point in points.items()}),
        live=live,
    )
    found = {
        name: choose_exponents(seen, layers[name].step, layers[name].lattice_bits, calibration.config.changes)
        for name, seen in observations.items()
    }
    return {name: tuple(map(max, found[name], least[name])) for name in layers}
