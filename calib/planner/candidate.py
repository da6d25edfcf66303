"""One plan under consideration: its schedule, what was bought with it, its cost and its measured quality."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calib.plan import Mode, Plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calib.adjoint import LayerSweep
    from calib.calibration import Calibration


@dataclass(frozen=True)
class Candidate:
    """A plan and its proof.

    Attributes:
        plan: of layers and reuse points.
        full_steps: multiply-accumulates of all passes, residual ones included, in units of one pass of every layer.
        cost: the board's cost model over one pass of every layer at every step; the MACs' share without a board.
        state_bytes: lattices, accumulators and reuse points of one job.
        levels: PSNR of each verification seed against the planner's reference, dB.
        within_one: share of each seed's 8-bit pixels that differ by at most one level.
    """

    plan: Plan
    full_steps: float
    cost: float
    state_bytes: int
    levels: tuple[float, ...]
    within_one: tuple[float, ...]

    @property
    def psnr(self) -> float:
        """Mean over the seeds, dB."""
        return sum(self.levels) / len(self.levels)

    @property
    def psnr_min(self) -> float:
        """Of the worst seed, dB."""
        return min(self.levels)

    @property
    def psnr_pooled(self) -> float:
        """Of the mean square error over all seeds, dB: bad seeds weigh as much as they are bad."""
        error = sum(10 ** (-level / 10) for level in self.levels) / len(self.levels)
        return -10 * math.log10(error) if error > 0 else math.inf

    @property
    def passes(self) -> float:
        """Passes a step, weighted by multiply-accumulates, residual ones included."""
        return self.full_steps / self.plan.steps


def full_steps(plan: Plan, macs: Mapping[str, int]) -> float:
    """Multiply-accumulates of a job from step 0 in units of one pass of every planned layer."""
    total = sum(macs[name] for name in plan.layers)
    return sum(macs[name] * sum(passes_of(plan, name)) for name in plan.layers) / total


def passes_of(plan: Plan, name: str) -> list[int]:
    """Passes of a layer at each step of a job from step 0, residual ones included."""
    layer = plan.layers[name]
    return [len(row.exponents) + len(row.residual_exponents) for row in (layer.anchor, *layer.rows[1:])]


def state_bytes(plan: Plan, seen: Mapping[str, LayerSweep], point_elements: Mapping[str, int]) -> int:
    """Bytes that one job keeps from step to step for layers and points."""
    total = 0
    for name, layer in plan.layers.items():
        if layer.mode is Mode.DELTA:
            planes = 2 if layer.uses_residual else 1
            total += planes * (2 * seen[name].inputs + 4 * seen[name].outputs)
    for name, point in plan.points.items():
        total += 4 * point_elements[name] * (2 if point.extrapolates else 1)
    return total


def front(candidates: list[Candidate]) -> tuple[Candidate, ...]:
    """Those that no other one beats in cost, state and quality (mean and pooled), cheapest first."""
    ranks = {id(each): (each.cost, each.state_bytes, each.psnr, each.psnr_pooled) for each in candidates}

    def beaten(each: Candidate) -> bool:
        return any(
            other.cost <= each.cost
            and other.state_bytes <= each.state_bytes
            and other.psnr >= each.psnr
            and other.psnr_pooled >= each.psnr_pooled
            and ranks[id(other)] != ranks[id(each)]
            for other in candidates
        )

    kept = [each for each in candidates if not beaten(each)]
    return tuple(sorted(kept, key=lambda each: (each.cost, -each.psnr)))


def planned(calibration: Calibration, plan: Plan) -> Calibration:
    """The calibration with another plan, and the content hash that belongs to both."""
    digest = hashlib.sha256(f"{calibration.content_hash}\n{plan.to_json()}".encode()).hexdigest()
    return dataclasses.replace(calibration, plan=plan, content_hash=digest)
