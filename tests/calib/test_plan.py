"""The plan's format: tables, JSON, and what is refused."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from calib.errors import PlanError
from calib.plan import (
    LayerPlan,
    Mode,
    Plan,
    PlanRow,
    PointPlan,
    Reuse,
    anchor_exponents,
    coarse_exponent,
    uniform_plan,
)

exponents = st.lists(st.integers(0, 15), max_size=2).map(tuple)


@st.composite
def rows(draw: st.DrawFn, mode: Mode, least: int = 0) -> PlanRow:
    main = draw(st.lists(st.integers(0, 15), min_size=least, max_size=2).map(tuple))
    return PlanRow(main, draw(exponents), bool(mode is Mode.DELTA and not main and draw(st.booleans())))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    steps = draw(st.integers(1, 6))
    layers = {}
    for name in draw(st.lists(st.text(min_size=1, max_size=8), max_size=3, unique=True)):
        mode = draw(st.sampled_from(Mode))
        anchor = draw(rows(mode, least=1))
        row = rows(mode) if mode is Mode.DELTA else st.sampled_from([anchor, PlanRow(())])
        layers[name] = LayerPlan(mode, tuple(draw(row) for _ in range(steps)), anchor)
    reuse = st.lists(st.sampled_from(Reuse), min_size=steps, max_size=steps).map(lambda codes: PointPlan(tuple(codes)))
    blocks = st.text(min_size=9, max_size=12)  # longer than a layer's name: no layer is within one
    return Plan(steps, layers, draw(st.dictionaries(blocks, reuse, max_size=2)))


def layer_of_passes(steps: int) -> LayerPlan:
    """One pass a step."""
    return LayerPlan(Mode.DELTA, (PlanRow((1,)),) * steps, PlanRow((1,)))


def test_layers_beside_a_reused_block_or_at_its_first_step_have_passes() -> None:
    held = PointPlan((Reuse.HOLD, Reuse.REFRESH))
    assert Plan(2, {"a.b": layer_of_passes(2)}, {"a": held}).points == {"a": held}
    assert Plan(2, {"ab.c": layer_of_passes(2)}, {"a": PointPlan((Reuse.REFRESH, Reuse.HOLD))}).points


@given(plans())
def test_json_reads_back_equal(plan: Plan) -> None:
    assert Plan.from_json(plan.to_json()) == plan


@given(plans())
def test_tables_have_a_row_a_step_and_the_anchor(plan: Plan) -> None:
    for layer in plan.layers.values():
        table = layer.table()
        assert table.shape == (plan.steps + 1, 8)
        assert table.dtype == np.int8
        assert table[-1].tolist() == layer.anchor.columns()
        assert (table[:, 7] == 0).all()
        alike = [layer.anchor.columns()] * (plan.steps + 1)
        assert layer.operator_table().tolist() == (alike if layer.mode is Mode.DIRECT else table.tolist())


def test_the_table_is_the_contract() -> None:
    layer = LayerPlan(
        Mode.DELTA, (PlanRow((3,), (5,)), PlanRow((), (6, 1), extrapolates=True), PlanRow(())), PlanRow((5, 0), (4,))
    )
    assert layer.table().tolist() == [
        [1, 3, 0, 1, 5, 0, 0, 0],
        [0, 0, 0, 2, 6, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [2, 5, 0, 1, 4, 0, 0, 0],
    ]
    assert layer.extrapolates
    assert layer.uses_residual


def test_the_json_is_frozen() -> None:
    layer = LayerPlan(Mode.DELTA, (PlanRow((3,)), PlanRow((), (4,)), PlanRow(())), PlanRow((5, 0)))
    plan = Plan(3, {"a.b": layer}, {"c": PointPlan((Reuse.REFRESH, Reuse.HOLD, Reuse.EXTRAPOLATE))})
    table = "[[1,3,0,0,0,0,0,0],[0,0,0,1,4,0,0,0],[0,0,0,0,0,0,0,0],[2,5,0,0,0,0,0,0]]"
    layers = f'"layers":{{"a.b":{{"mode":"delta","table":{table}}}}}'
    assert plan.to_json() == f'{{"format":2,"steps":3,{layers},"points":{{"c":[0,1,2]}}}}'
    assert Plan.from_json(f'{{"format":1,"steps":3,{layers}}}') == Plan(3, {"a.b": layer})
    assert plan.points["c"].refreshes == (0,)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PlanRow((1, 2, 3)),
        lambda: PlanRow((16,)),
        lambda: PlanRow((), (-1,)),
        lambda: PlanRow((1,), (), extrapolates=True),
        lambda: LayerPlan(Mode.DELTA, (PlanRow((1,)),), PlanRow(())),
        lambda: LayerPlan(Mode.DIRECT, (PlanRow((), extrapolates=True),), PlanRow((1,))),
        lambda: Plan(0, {}),
        lambda: Plan(2, {}, {"a": PointPlan((Reuse.REFRESH,))}),
        lambda: Plan(2, {"a": LayerPlan(Mode.DELTA, (PlanRow((1,)),), PlanRow((1,)))}),
        lambda: Plan(2, {"a.b": layer_of_passes(2)}, {"a": PointPlan((Reuse.REFRESH, Reuse.HOLD))}),
        lambda: uniform_plan({}, {}, residual_every=None),
        lambda: uniform_plan({"a": (1,), "b": (1, 2)}, {"a": 13, "b": 13}, residual_every=None),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(make: object) -> None:
    with pytest.raises(PlanError):
        make()


GOOD = json.loads(Plan(1, {"a": LayerPlan(Mode.DELTA, (PlanRow((3,)),), PlanRow((5, 0)))}).to_json())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), 3),
        (("format",), True),
        (("points",), []),
        (("points",), None),
        (("points", "a"), 0),
        (("points", "a"), [3]),
        (("points", "a"), [False]),
        (("points", "a"), [0, 1]),
        (("steps",), 2),
        (("steps",), True),
        (("layers",), []),
        (("layers", "a"), {}),
        (("layers", "a", "mode"), "fast"),
        (("layers", "a", "table"), [[1, 3, 0, 0, 0, 0, 0, 0]]),
        (("layers", "a", "table", 0), [1, 3]),
        (("layers", "a", "table", 0, 0), 3),
        (("layers", "a", "table", 0, 1), 16),
        (("layers", "a", "table", 0, 1), 1.0),
        (("layers", "a", "table", 0, 2), 1),
        (("layers", "a", "table", 0, 6), 2),
        (("layers", "a", "table", 0, 6), 1),
        (("layers", "a", "table", 0, 7), 1),
        (("layers", "a", "table", 1, 0), 0),
    ],
)
def test_a_file_that_breaks_the_format_is_refused(path: tuple, value: object) -> None:
    document = json.loads(json.dumps(GOOD))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(PlanError) as caught:
        Plan.from_json(json.dumps(document), where="p.json")
    assert caught.value.where
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"plan"'])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(PlanError):
        Plan.from_json(text)


@pytest.mark.parametrize("bits", range(8, 17))
def test_the_anchor_reaches_every_lattice_value_up_to_a_remainder(bits: int) -> None:
    coarse, fine = anchor_exponents(bits)
    limit = 2 ** (bits - 1) - 1
    assert 127 * 2**coarse + 127 * 2**fine >= limit - 2**coarse
    assert 2 ** max(0, coarse - 1) <= 127 * 2**fine
    assert coarse == coarse_exponent(bits) <= 15


def test_the_uniform_plan() -> None:
    plan = uniform_plan({"a": (5, 1, 2, 3, 0)}, {"a": 13}, residual_every=2)
    layer = plan.layers["a"]
    assert layer.anchor == PlanRow((5, 0), (5,))
    assert [row.exponents for row in layer.rows] == [(5,), (1,), (2,), (3,), (0,)]
    assert [row.residual_exponents for row in layer.rows] == [(), (), (5,), (), (5,)]
    exact = uniform_plan({"a": (5, 1), "b": (5, 1)}, {"a": 13, "b": 13}, residual_every=None, always_exact={"b"})
    assert [row.exponents for row in exact.layers["b"].rows] == [(5, 0), (5, 0)]
    assert [row.exponents for row in exact.layers["a"].rows] == [(5,), (1,)]
    without = uniform_plan({"a": (5, 1)}, {"a": 13}, residual_every=None).layers["a"]
    assert not without.uses_residual
    only_first = uniform_plan({"a": (5, 1)}, {"a": 13}, residual_every=0).layers["a"]
    assert only_first.anchor.residual_exponents == (5,)
    assert not any(row.residual_exponents for row in only_first.rows)
