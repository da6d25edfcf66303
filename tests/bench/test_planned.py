"""A thinned plan keeps its budget at every step, and what it reuses is what a region says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib.plan import LayerPlan, Mode, Plan, PlanRow, Reuse
from calib.planner.regions import Region
from tests.bench.instructions import BenchError
from tests.bench.planned import reuse, reused_steps


@given(st.floats(0.05, 0.95), st.integers(2, 60), st.floats(0.1, 1.0))
def test_the_budget_holds_at_every_step_and_is_used(saving: float, steps: int, passes: float) -> None:
    if 1 - saving > passes:
        with pytest.raises(BenchError, match="no region"):
            reused_steps(saving, steps, passes)
        return
    reused = reused_steps(saving, steps, passes)
    assert 0 not in reused
    done = 0.0
    for step in range(1, steps):
        done += 1 - saving * (step in reused)
        assert done <= passes * step + 1e-6
        assert passes * step - done < 1, "a whole refresh would have fitted"


def test_half_the_passes_refresh_again_and_again() -> None:
    assert reused_steps(0.9, 10, 0.5) == {1, 2, 4, 6, 8}


def test_reused_blocks_have_no_pass_and_their_point_extrapolates() -> None:
    row = PlanRow((0,))
    layer = LayerPlan(Mode.DELTA, (row,) * 4, PlanRow((5, 0)))
    plan = Plan(4, {"in": layer, "low": layer, "deep": layer})
    thin = reuse(plan, Region(("up.1",), frozenset({"deep", "low"}), 0.7), frozenset({1, 3}))
    passes = {name: [len(r.exponents) for r in each.rows] for name, each in thin.layers.items()}
    assert passes == {"in": [1, 1, 1, 1], "low": [1, 0, 1, 0], "deep": [1, 0, 1, 0]}
    assert thin.points["up.1"].rows == (Reuse.REFRESH, Reuse.EXTRAPOLATE, Reuse.REFRESH, Reuse.EXTRAPOLATE)
    assert reuse(plan, Region(("up.1",), frozenset({"deep"}), 0.7), frozenset()) == plan
