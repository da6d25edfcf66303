"""A plan with fewer passes for measuring: the largest region is reused as often as the budget asks, evenly over the
steps; at the others everything is refreshed.

Which steps are reused decides quality, not cost, so no search is made; ``calib.planner`` makes plans for images.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from calib.plan import LayerPlan, Plan, PlanRow, PointPlan, Reuse
from calib.planner.regions import find_regions
from tests.bench.instructions import BenchError
from tests.bench.models import layer_shapes

if TYPE_CHECKING:
    from calib.adapters import PretrainedModel
    from calib.planner.regions import Region


def thinned(model: PretrainedModel, plan: Plan, passes: float) -> Plan:
    """``plan`` with about ``passes`` passes a step after the anchor, never more, weighted by multiply-accumulates.

    Raises:
        BenchError: the model has no blocks that can be reused, or too small ones.
    """
    work = {shape.name: float(shape.macs) for shape in layer_shapes(model.denoiser, model.sample_shape)}
    regions = find_regions(model, {name: work[name] for name in plan.layers})
    if not regions:
        raise BenchError("the model has no blocks that can be reused", where=model.name)
    return reuse(plan, regions[-1], reused_steps(regions[-1].saving, plan.steps, passes))


def reused_steps(saving: float, steps: int, passes: float) -> frozenset[int]:
    """The steps at which a region is reused; the others do the whole work as soon as the budget allows.

    Args:
        saving: share of the work that the region saves.
        steps: of the sampler; the first one is the anchor.
        passes: share of the work a step may do, on average from step 1 to any step.

    Raises:
        BenchError: the region saves too little.
    """
    if 1 - saving > passes:
        raise BenchError(f"no region of the model saves {1 - passes:.0%} of the work", where="reuse")
    reused, done = set(), 0.0
    for step in range(1, steps):
        if done + 1 > passes * step + 1e-9:
            reused.add(step)
        done += 1 - saving * (step in reused)
    return frozenset(reused)


def reuse(plan: Plan, region: Region, steps: frozenset[int]) -> Plan:
    """Extrapolate the region's points at ``steps``; the layers within have no pass there."""
    rows = tuple(Reuse.EXTRAPOLATE if step in steps else Reuse.REFRESH for step in range(plan.steps))

    def thin(layer: LayerPlan) -> LayerPlan:
        return dataclasses.replace(
            layer, rows=tuple(PlanRow(()) if step in steps else row for step, row in enumerate(layer.rows))
        )

    layers = {name: thin(layer) if name in region.idle else layer for name, layer in plan.layers.items()}
    return Plan(plan.steps, layers, dict.fromkeys(region.points, PointPlan(rows)) if steps else {})
