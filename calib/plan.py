"""The plan: what each layer and each reuse point does at which sampler step; and its file format.

A layer's row says how many passes it does, with which exponents. A *reuse point* sits on the output of a module (a
block); its row says whether that output is computed, held, or extrapolated, so that whole blocks are skipped together.
A plan decides cost and quality, never correctness: whatever it says, the invariants of ``calib.lattice`` hold.

Format 2 added the reuse points; a plan of format 1 is read as one without any.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from calib.errors import PlanError

FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
MAX_PASSES = 2
MAX_EXPONENT = 15
TABLE_COLUMNS = 8


class Mode(StrEnum):
    """How a layer uses its state."""

    DELTA = "delta"
    """Modulated: lattice and accumulator are kept over the job."""
    DIRECT = "direct"
    """Ordinary INT8: both are scratch, zero before each step."""


class Reuse(StrEnum):
    """What a reuse point gives out at a step."""

    REFRESH = "refresh"
    """The module's own output, which is kept."""
    HOLD = "hold"
    """The output kept last."""
    EXTRAPOLATE = "extrapolate"
    """What lies on the line through the two outputs kept last; the last one while there is only one."""

    @property
    def code(self) -> int:
        """As the operators read it: 0 refresh, 1 hold, 2 extrapolate."""
        return list(Reuse).index(self)


@dataclass(frozen=True)
class PlanRow:
    """One layer at one step.

    Attributes:
        exponents: ``k`` of each main pass in the order they run; empty = the output is reused.
        residual_exponents: the same for the residual-weight plane.
        extrapolates: at a reused step, extrapolate from the last two refreshes instead of holding the last one.
    """

    exponents: tuple[int, ...]
    residual_exponents: tuple[int, ...] = ()
    extrapolates: bool = False

    def __post_init__(self) -> None:
        for exponents in (self.exponents, self.residual_exponents):
            if len(exponents) > MAX_PASSES:
                raise PlanError(f"{len(exponents)} passes in one row", mend=f"at most {MAX_PASSES} are possible")
            if any(not 0 <= exponent <= MAX_EXPONENT for exponent in exponents):
                raise PlanError(f"exponents {list(exponents)} out of range", mend=f"use 0..{MAX_EXPONENT}")
        if self.extrapolates and self.exponents:
            raise PlanError("a row with main passes cannot extrapolate", mend="drop one of the two")

    def columns(self) -> list[int]:
        """The row as the operators read it: passes, k0, k1, residual passes, rk0, rk1, reuse, 0."""
        main, residual = ((*e, *(0,) * (MAX_PASSES - len(e))) for e in (self.exponents, self.residual_exponents))
        return [len(self.exponents), *main, len(self.residual_exponents), *residual, int(self.extrapolates), 0]


@dataclass(frozen=True)
class LayerPlan:
    """One layer over the whole job.

    Attributes:
        mode: delta or direct. A direct layer does its anchor at every step at which it runs. It has nothing to reuse: a
            row without a main pass is for steps at which a reuse point keeps everyone from reading its output; who
            reads it nevertheless gets what the anchor gives.
        rows: one per sampler step.
        anchor: what the first step of a job does instead of its row, whatever step that is.
    """

    mode: Mode
    rows: tuple[PlanRow, ...]
    anchor: PlanRow

    def __post_init__(self) -> None:
        if not self.anchor.exponents:
            raise PlanError("the anchor has no main pass", mend="a fresh state needs at least one")
        if self.mode is Mode.DIRECT and self.extrapolates:
            raise PlanError("a direct layer keeps no output to extrapolate", mend="hold it through a reuse point")
        if self.mode is Mode.DIRECT and any(row.exponents and row != self.anchor for row in self.rows):
            raise PlanError("a direct layer has a row that is not its anchor's", mend="all its steps are alike")

    @property
    def extrapolates(self) -> bool:
        """Whether any row needs the layer's output history."""
        return any(row.extrapolates for row in self.rows)

    @property
    def uses_residual(self) -> bool:
        """Whether any row looks at the residual-weight plane."""
        return any(row.residual_exponents for row in (*self.rows, self.anchor))

    def row(self, step: int, *, fresh: bool) -> PlanRow:
        """What the layer does at a step where it runs.

        Args:
            step: sampler step.
            fresh: whether it is the first of a job.
        """
        return self.anchor if fresh or self.mode is Mode.DIRECT else self.rows[step]

    def table(self) -> npt.NDArray[np.int8]:
        """int8 ``[T + 1, 8]``: ``PlanRow.columns`` per step, the anchor last."""
        return np.array([row.columns() for row in (*self.rows, self.anchor)], dtype=np.int8)

    def operator_table(self) -> npt.NDArray[np.int8]:
        """``table`` as an operator is given it: with ``row`` of each step."""
        rows = [self.row(step, fresh=False) for step in range(len(self.rows))]
        return np.array([row.columns() for row in (*rows, self.anchor)], dtype=np.int8)


@dataclass(frozen=True)
class PointPlan:
    """One reuse point over the whole job. The first step of a job is a refresh, whatever its row says.

    Attributes:
        rows: one per sampler step.
    """

    rows: tuple[Reuse, ...]

    @property
    def extrapolates(self) -> bool:
        """Whether any row needs the output before the last kept one."""
        return Reuse.EXTRAPOLATE in self.rows

    @property
    def refreshes(self) -> tuple[int, ...]:
        """The steps that compute the output, step 0 among them."""
        return tuple(i for i, row in enumerate(self.rows) if row is Reuse.REFRESH or i == 0)

    def table(self) -> npt.NDArray[np.int8]:
        """int8 ``[T]``: ``Reuse.code`` per step."""
        return np.array([row.code for row in self.rows], dtype=np.int8)


@dataclass(frozen=True)
class Plan:
    """Every modulated layer's plan and every reuse point's; a layer that is not named stays in floating point.

    Attributes:
        steps: sampler steps ``T``.
        layers: by the layer's dotted name in the denoiser.
        points: by the dotted name of the module whose output is reused. It must be called exactly once a step and
            return one float tensor. Where it is reused, the layers within have no pass.
    """

    steps: int
    layers: Mapping[str, LayerPlan]
    points: Mapping[str, PointPlan] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise PlanError(f"a plan of {self.steps} steps", mend="it needs at least one")
        lengths = [(name, len(layer.rows)) for name, layer in self.layers.items()]
        lengths += [(name, len(point.rows)) for name, point in self.points.items()]
        for name, length in lengths:
            if length != self.steps:
                raise PlanError(f"{length} rows for {self.steps} steps", where=name)
        for block, point in self.points.items():
            within = [name for name in self.layers if name.startswith(f"{block}.") or name == block]
            for step in set(range(self.steps)).difference(point.refreshes):
                for name in within:
                    row = self.layers[name].rows[step]
                    if row.exponents or row.residual_exponents:
                        raise PlanError(
                            f"a pass at step {step}, where the output of {block} is reused",
                            where=name,
                            mend="a layer within a block does nothing where the block is not computed",
                        )

    def to_json(self) -> str:
        """The plan's file; ``from_json`` reads it back equal."""
        layers = {
            name: {"mode": layer.mode.value, "table": layer.table().tolist()} for name, layer in self.layers.items()
        }
        points = {name: point.table().tolist() for name, point in self.points.items()}
        document = {"format": FORMAT_VERSION, "steps": self.steps, "layers": layers, "points": points}
        return json.dumps(document, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, *, where: str = "plan") -> Plan:
        """Read ``to_json``'s text.

        Raises:
            PlanError: not JSON, another format version, or a table that breaks the format.
        """
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise PlanError(f"not JSON: {error}", where=where) from error
        if not isinstance(document, dict) or not {"format", "steps", "layers"} <= document.keys():
            raise PlanError("a plan has the keys format, steps and layers", where=where)
        if type(document["format"]) is not int or document["format"] not in READABLE_VERSIONS:
            raise PlanError(
                f"plan format {document['format']!r} is unknown",
                where=where,
                mend=f"this kit reads {READABLE_VERSIONS}",
            )
        points = document.get("points") if document["format"] >= 2 else {}
        if not isinstance(document["layers"], dict) or not isinstance(points, dict):
            raise PlanError("layers and points must be objects", where=where)
        if type(document["steps"]) is not int:
            raise PlanError("steps must be an integer", where=where)
        return cls(
            document["steps"],
            {name: _read_layer(entry, f"{where}, layer {name}") for name, entry in document["layers"].items()},
            {name: _read_point(entry, f"{where}, point {name}") for name, entry in points.items()},
        )


def _read_layer(entry: object, where: str) -> LayerPlan:
    """One layer of the file, typed."""
    if not isinstance(entry, dict) or set(entry) != {"mode", "table"}:
        raise PlanError("a layer has the keys mode and table", where=where)
    if entry["mode"] not in {mode.value for mode in Mode}:
        raise PlanError(f"mode {entry['mode']!r} is unknown", where=where, mend=f"use one of {[*map(str, Mode)]}")
    if not isinstance(entry["table"], list) or len(entry["table"]) < 2:
        raise PlanError("a table has one row a step and the anchor", where=where)
    try:
        *rows, anchor = (_read_row(row, f"{where}, row {i}") for i, row in enumerate(entry["table"]))
        return LayerPlan(Mode(entry["mode"]), tuple(rows), anchor)
    except PlanError as error:
        raise error if error.where else PlanError(error.what, where=where, mend=error.mend) from error


def _read_point(entry: object, where: str) -> PointPlan:
    """One reuse point of the file, typed."""
    choices = list(Reuse)
    if not isinstance(entry, list) or any(type(code) is not int or not 0 <= code < len(choices) for code in entry):
        raise PlanError(f"a point is a list of codes 0..{len(choices) - 1}, one a step", where=where)
    return PointPlan(tuple(choices[code] for code in entry))


def _read_row(row: object, where: str) -> PlanRow:
    """One row of a table, typed; exactly what ``PlanRow.columns`` writes."""

    def refuse(what: str) -> NoReturn:
        raise PlanError(what, where=where)

    if not isinstance(row, list) or len(row) != TABLE_COLUMNS or any(type(value) is not int for value in row):
        refuse(f"a row has {TABLE_COLUMNS} integers")
    passes, residual_passes, reuse = row[0], row[3], row[6]
    if not 0 <= passes <= MAX_PASSES or not 0 <= residual_passes <= MAX_PASSES or reuse not in {0, 1}:
        refuse("passes are 0..2 and reuse is 0 or 1")
    parsed = PlanRow(tuple(row[1 : 1 + passes]), tuple(row[4 : 4 + residual_passes]), bool(reuse))
    if parsed.columns() != row:
        refuse("unused columns must be 0")
    return parsed


def anchor_exponents(lattice_bits: int) -> tuple[int, int]:
    """Exponents of a full-precision start: a coarse pass over the whole lattice, then a fine one.

    The fine pass reaches every remainder of the coarse one (at most half its step).
    """
    coarse = coarse_exponent(lattice_bits)
    fine = 0 if 2**coarse <= 2 * 127 else 1
    return coarse, fine


def coarse_exponent(lattice_bits: int) -> int:
    """The exponent whose 8-bit code spans a whole lattice of ``lattice_bits``."""
    return max(0, lattice_bits - 8)


def uniform_plan(
    exponents: Mapping[str, tuple[int, ...]],
    lattice_bits: Mapping[str, int],
    *,
    residual_every: int | None,
    always_exact: Collection[str] = (),
) -> Plan:
    """The plan without planning: an anchor first, one main pass at each later step, residual passes at a fixed rate.

    Args:
        exponents: per layer, ``k`` of the one main pass of each step (length ``T``).
        lattice_bits: per layer.
        residual_every: steps from one residual pass to the next; 0 = at the anchor only, None = no residual plane.
        always_exact: layers that do the anchor's two passes at every step.

    Raises:
        PlanError: no layer, or layers of different lengths.
    """
    lengths = {len(ks) for ks in exponents.values()}
    if len(lengths) != 1:
        raise PlanError(f"exponents for {sorted(lengths)} steps", mend="give each layer one exponent a step")
    steps = lengths.pop()
    layers = {}
    for name, ks in exponents.items():
        bits = lattice_bits[name]
        # A residual weight is worth at most half a step of a main one, so its lattice may be coarse.
        residual = (coarse_exponent(bits),)
        rows = tuple(
            PlanRow(
                anchor_exponents(bits) if name in always_exact else (ks[i],),
                residual if residual_every and i > 0 and i % residual_every == 0 else (),
            )
            for i in range(steps)
        )
        anchor = PlanRow(anchor_exponents(bits), () if residual_every is None else residual)
        layers[name] = LayerPlan(Mode.DELTA, rows, anchor)
    return Plan(steps, layers)
