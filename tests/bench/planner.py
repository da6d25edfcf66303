"""What a step costs under a plan of ``calib.planner``: planned for a budget, lowered, counted.

The planner runs with the least that makes plans (one seed, one direction), because quality is not looked at here,
where weights are random; its schedules and the passes it buys are those of a real run. ``planned.py`` makes a plan of
the same kind in a second, for ``compare``.
"""

from __future__ import annotations

from dataclasses import dataclass

from boards import load_board
from calib import CalibrationConfig, calibrate
from calib.modulated import modulate
from calib.planner import PlannerConfig, plan, planned
from calib.samplers import build_sampler
from edge.cache import cache_folder
from tests.bench.counted import count_ours
from tests.bench.instructions import Counts
from tests.bench.models import layer_shapes, model_named
from tests.bench.ours import Prepared


@dataclass(frozen=True)
class PlannedCount:
    """A plan of the planner.

    Attributes:
        model: its name.
        steps: of the sampler.
        cost: of the plan, by the board's cost model: a share of one pass of every layer at every step.
        counts: instructions of a step, the mean over all steps after the anchor.
    """

    model: str
    steps: int
    cost: float
    counts: Counts


def measure(name: str, steps: int, budget: float, board_name: str, cpu: str) -> PlannedCount:
    """Plan a model for ``budget``, lower the plan, count its steps. What was planned before is taken from the cache."""
    from edge.lower.export import lower

    board, model = load_board(board_name), model_named(name)
    sampler = build_sampler("ddim", steps, model.schedule)
    seen = CalibrationConfig(seeds=2, batch=2, exact_share=0.0, residual_every=None)
    calibration = calibrate(model, sampler, seen)
    config = PlannerConfig(budgets=(budget,), sweep_seeds=1, probes=1, verification_seeds=1, reserves=(1.2,))
    folder = cache_folder() / "bench" / "planned" / f"{name}-{steps}-{board.name}-{budget}"
    journal = folder / "journal"
    journal.mkdir(parents=True, exist_ok=True)
    found = plan(model, sampler, calibration, config, board_cost=board.cost, journal=journal)
    best = found.choose(cost=budget)
    lowered = lower(modulate(model.denoiser, planned(calibration, best.plan)), sampler, model.sample_shape)
    program = folder / f"{lowered.sha256[:20]}.pte"
    program.write_bytes(lowered.data)
    prepared = Prepared(
        name,
        program,
        lowered.sha256,
        steps,
        lowered.state_bytes,
        lowered.activation_bytes,
        lowered.calls,
        tuple(layer_shapes(model.denoiser, model.sample_shape)),
        varies=True,
    )
    return PlannedCount(name, steps, best.cost, count_ours(prepared, cpu))
