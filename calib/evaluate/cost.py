"""What a way of making an image costs, in multiply-accumulates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from calib.plan import Plan


@dataclass(frozen=True)
class Cost:
    """Averages and sums over a whole job, every layer weighted by its MACs.

    Attributes:
        passes: main passes a step; None in floating point.
        residual_passes: residual-weight passes a step; None in floating point.
        full_steps: MACs of the job in units of one float step of the whole model, all passes counted.
    """

    passes: float | None
    residual_passes: float | None
    full_steps: float


def float_cost(steps: int) -> Cost:
    """A float model's (or an ordinarily quantized one's) cost."""
    return Cost(None, None, float(steps))


def plan_cost(plan: Plan, macs: Mapping[str, int]) -> Cost:
    """A plan's cost: the anchor at step 0, the rows after it.

    Args:
        plan: of some of the layers.
        macs: of every linear layer of the model for one sample; those that the plan does not name stay in floating
            point and run at every step.
    """
    main = residual = 0
    for name, layer in plan.layers.items():
        rows = (layer.anchor, *layer.rows[1:])
        main += macs[name] * sum(len(row.exponents) for row in rows)
        residual += macs[name] * sum(len(row.residual_exponents) for row in rows)
    planned = sum(macs[name] for name in plan.layers)
    rest = sum(macs.values()) - planned
    return Cost(
        main / (planned * plan.steps),
        residual / (planned * plan.steps),
        (main + residual + rest * plan.steps) / sum(macs.values()),
    )
