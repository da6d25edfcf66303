"""A thinned plan keeps its budget at every step, and what it reuses is what a region says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.plan import LayerPlan, Mode, Plan, PlanRow, Reuse
from calib.planner.regions import Region
from tests.bench.instructions import BenchError
from tests.bench.planned import apply_levels, choose_levels


@given(st.lists(st.floats(0.05, 0.95), min_size=1, max_size=5), st.integers(2, 40), st.floats(0.1, 1.0))
def test_the_budget_holds_at_every_step_and_is_used(savings: list[float], steps: int, passes: float) -> None:
    savings.sort()
    if 1 - savings[-1] > passes:
        with pytest.raises(BenchError, match="no region"):
            choose_levels(savings, steps, passes)
        return
    levels = choose_levels(savings, steps, passes)
    assert levels[0] == 0
    assert len(levels) == steps
    done = 0.0
    for step, level in enumerate(levels[1:], start=1):
        left = passes * step - done
        done += 1 - (0.0, *savings)[level]
        assert done <= passes * step + 1e-6
        if level:  # the next smaller region would not have fitted
            assert 1 - (0.0, *savings)[level - 1] > left


def test_without_regions_nothing_can_be_thinned() -> None:
    with pytest.raises(BenchError, match="no region"):
        choose_levels([], 4, 0.5)


def test_reused_blocks_have_no_pass_and_their_point_extrapolates() -> None:
    row = PlanRow((0,))
    layer = LayerPlan(Mode.DELTA, (row,) * 4, PlanRow((5, 0)))
    plan = Plan(4, {"in": layer, "low": layer, "deep": layer})
    small = Region(("up.0",), frozenset({"deep"}), 0.3)
    large = Region(("up.1",), frozenset({"deep", "low"}), 0.7)
    thin = apply_levels(plan, [small, large], (0, 2, 0, 1))
    passes = {name: [len(r.exponents) for r in each.rows] for name, each in thin.layers.items()}
    assert passes == {"in": [1, 1, 1, 1], "low": [1, 0, 1, 1], "deep": [1, 0, 1, 0]}
    assert thin.points["up.0"].rows == (Reuse.REFRESH, Reuse.REFRESH, Reuse.REFRESH, Reuse.EXTRAPOLATE)
    assert thin.points["up.1"].rows == (Reuse.REFRESH, Reuse.EXTRAPOLATE, Reuse.REFRESH, Reuse.REFRESH)
    assert set(apply_levels(plan, [small, large], (0, 2, 0, 2)).points) == {"up.1"}
