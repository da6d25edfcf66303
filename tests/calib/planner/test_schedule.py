"""The search over schedules, on projections made by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from calib.plan import Reuse
from calib.planner.regions import Region
from calib.planner.schedule import ScheduleSearch, live_steps

STEPS = 8
INNER = Region(("inner",), frozenset({"a"}), 0.3)
OUTER = Region(("outer",), frozenset({"a", "b"}), 0.8)


def search(values: list[float], **options: object) -> ScheduleSearch:
    """One scalar feature, seen by one probe at every step alike; the inner one costs a tenth of the outer."""
    row = torch.tensor(values, dtype=torch.float64).expand(1, 1, len(values), len(values))
    return ScheduleSearch([INNER, OUTER], {"inner": 0.1 * row, "outer": row.clone()}, **options)


def test_a_straight_line_is_extrapolated_for_nothing_and_held_at_a_price() -> None:
    line = [0.5 * i for i in range(STEPS)]
    levels = (0, 0, 2, 2, 2, 2, 2, 2)
    assert search(line).error(levels) == pytest.approx(0)
    held = search(line, extrapolates=False)
    # Errors of -0.5, -1, ... -3 add up to -10.5; half of the weight is on their own squares.
    assert held.error(levels) == pytest.approx((10.5**2 + 22.75) / 2)
    assert held.work(levels) == pytest.approx(2 + 6 * 0.2)


def test_an_output_that_was_off_when_it_was_kept_is_off_when_it_is_used() -> None:
    bent = search([0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], extrapolates=False)
    clean, stale = (0, 0, 0, 2, 0, 0, 0, 0), (0, 0, 1, 2, 0, 0, 0, 0)
    assert bent.error(clean) == pytest.approx(0)
    assert bent.error(stale) == pytest.approx(((2 * 0.1) ** 2 + 2 * 0.1**2) / 2)


def test_the_path_falls_in_work_and_reuses_where_nothing_changes() -> None:
    jump = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    path = search(jump, extrapolates=False).path()
    assert all(after.work < before.work for before, after in itertools.pairwise(path))
    assert path[0].levels == (0,) * STEPS
    assert path[-1].levels == (0, *(2,) * (STEPS - 1))
    cheapest_free = [each for each in path if each.error < 1e-12][-1]
    assert cheapest_free.levels == (0, 2, 2, 2, 0, 2, 2, 2)


def test_exchanges_only_help_and_keep_to_the_budget() -> None:
    generator = np.random.default_rng(3)
    curve = np.cumsum(generator.normal(size=STEPS)).tolist()
    found = search(curve)
    for budget in (3.0, 4.5, 6.0):
        start = next(each for each in found.path() if each.work <= budget)
        better = found.improve(start, budget)
        assert better.work <= budget + 1e-9
        assert better.error <= start.error


def test_points_follow_the_levels() -> None:
    found = search([0.0] * STEPS)
    points = found.points((0, 1, 2, 0, 2, 2, 0, 0))
    r, e = Reuse.REFRESH, Reuse.EXTRAPOLATE
    assert points["outer"].rows == (r, r, e, r, e, e, r, r)
    assert points["inner"].rows == (r, e, e, r, e, e, r, r)
    assert set(found.points((0, 2, 2, 0, 0, 0, 0, 0))) == {"outer"}
    assert live_steps((0, 1, 2, 0), [INNER, OUTER], "a") == [0, 3]
    assert live_steps((0, 1, 2, 0), [INNER, OUTER], "b") == [0, 1, 3]
    assert live_steps((0, 1, 2, 0), [INNER, OUTER], "c") == [0, 1, 2, 3]


def test_schedules_looked_at_together_are_predicted_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(5)
    found = search(generator.normal(size=STEPS).tolist())
    levels = generator.integers(0, 3, (20, STEPS))
    levels[:, 0] = 0
    alone = [found.error(tuple(row)) for row in levels.tolist()]
    monkeypatch.setattr("calib.planner.schedule.TOGETHER", 7)
    assert found.errors(levels) == pytest.approx(alone, rel=1e-12)
    assert len(set(alone)) > 15


def test_regions_that_share_points_add_up() -> None:
    """Of a transformer's two runs of branches the longer one reuses the shorter one's branch, too."""
    line = torch.arange(STEPS, dtype=torch.float64).expand(1, 1, STEPS, STEPS)
    wide = Region(("inner", "outer"), frozenset({"a", "b"}), 0.8)
    found = ScheduleSearch([INNER, wide], {"inner": 2 * line, "outer": 3 * line}, extrapolates=False)
    assert found.error((0, 1, 0, 0, 0, 0, 0, 0)) == pytest.approx(2**2)
    assert found.error((0, 2, 0, 0, 0, 0, 0, 0)) == pytest.approx(5**2)
