"""A plan with fewer passes for measuring: nested blocks are reused as often as the budget asks, evenly over the steps.

Which steps are reused decides quality, not cost, so no search is made; ``calib.planner`` makes plans for images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
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
    levels = choose_levels([region.saving for region in regions], plan.steps, passes)
    return apply_levels(plan, regions, levels)


def choose_levels(savings: Sequence[float], steps: int, passes: float) -> tuple[int, ...]:
    """Which region is reused at each step: 0 = none, l = the l-th; the smallest that keeps the sum within the budget.

    Args:
        savings: share of the work that each region saves, ascending.
        steps: of the sampler; the first one is the anchor.
        passes: share of the work a step may do, on average from step 1 to any step.

    Raises:
        BenchError: the largest region saves too little.
    """
    if not savings or 1 - savings[-1] > passes:
        raise BenchError(f"no region of the model saves {1 - passes:.0%} of the work", where="reuse")
    levels, done = [0], 0.0
    for step in range(1, steps):
        left = passes * step - done
        level = next(at for at, saved in enumerate((0.0, *savings)) if 1 - saved <= left + 1e-9)
        levels.append(level)
        done += 1 - (0.0, *savings)[level]
    return tuple(levels)


def apply_levels(plan: Plan, regions: Sequence[Region], levels: Sequence[int]) -> Plan:
    """Reuse each region's points, extrapolated, at the steps with its level; the layers within have no pass there."""
    points: dict[str, list[Reuse]] = {}
    idle: Mapping[int, frozenset[str]] = {0: frozenset(), **{at + 1: r.idle for at, r in enumerate(regions)}}
    for region in regions:
        points |= {point: [Reuse.REFRESH] * plan.steps for point in region.points}
    for step, level in enumerate(levels):
        for point in regions[level - 1].points if level else ():
            points[point][step] = Reuse.EXTRAPOLATE

    def rows(name: str, layer: LayerPlan) -> tuple[PlanRow, ...]:
        return tuple(PlanRow(()) if name in idle[levels[i]] else row for i, row in enumerate(layer.rows))

    layers = {name: dataclasses.replace(layer, rows=rows(name, layer)) for name, layer in plan.layers.items()}
    used = {name: PointPlan(tuple(each)) for name, each in points.items() if Reuse.EXTRAPOLATE in each}
    return Plan(plan.steps, layers, used)
