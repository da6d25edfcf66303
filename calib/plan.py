"""The plan: which layer does how many passes, with which exponents, at which sampler step; and its file format.

A plan decides cost and quality, never correctness: whatever it says, the invariants of ``calib.lattice`` hold.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from calib.errors import PlanError

FORMAT_VERSION = 1
MAX_PASSES = 2
MAX_EXPONENT = 15
TABLE_COLUMNS = 8


class Mode(StrEnum):
    """How a layer uses its state."""

    DELTA = "delta"
    """Modulated: lattice and accumulator are kept over the job."""
    DIRECT = "direct"
    """Ordinary INT8: both are scratch, zero before each step."""


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
        mode: delta or direct.
        rows: one per sampler step.
        anchor: what the first step of a job does instead of its row, whatever step that is.
    """

    mode: Mode
    rows: tuple[PlanRow, ...]
    anchor: PlanRow

    def __post_init__(self) -> None:
        if not self.anchor.exponents:
            raise PlanError("the anchor has no main pass", mend="a fresh state needs at least one")
        if self.mode is Mode.DIRECT and not all(row.exponents for row in self.rows):
            raise PlanError("a direct layer keeps no output to reuse", mend="give every row a main pass")

    @property
    def extrapolates(self) -> bool:
        """Whether any row needs the layer's output history."""
        return any(row.extrapolates for row in self.rows)

    @property
    def uses_residual(self) -> bool:
        """Whether any row looks at the residual-weight plane."""
        return any(row.residual_exponents for row in (*self.rows, self.anchor))

    def table(self) -> npt.NDArray[np.int8]:
        """int8 ``[T + 1, 8]``: ``PlanRow.columns`` per step, the anchor last."""
        return np.array([row.columns() for row in (*self.rows, self.anchor)], dtype=np.int8)


@dataclass(frozen=True)
class Plan:
    """Every modulated layer's plan; a layer that is not named here stays in floating point.

    Attributes:
        steps: sampler steps ``T``.
        layers: by the layer's dotted name in the denoiser.
    """

    steps: int
    layers: Mapping[str, LayerPlan]

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise PlanError(f"a plan of {self.steps} steps", mend="it needs at least one")
        for name, layer in self.layers.items():
            if len(layer.rows) != self.steps:
                raise PlanError(f"{len(layer.rows)} rows for {self.steps} steps", where=name)

    def to_json(self) -> str:
        """The plan's file; ``from_json`` reads it back equal."""
        layers = {
            name: {"mode": layer.mode.value, "table": layer.table().tolist()} for name, layer in self.layers.items()
        }
        return json.dumps({"format": FORMAT_VERSION, "steps": self.steps, "layers": layers}, separators=(",", ":"))

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
        if document["format"] != FORMAT_VERSION:
            raise PlanError(
                f"plan format {document['format']!r} is unknown", where=where, mend=f"this kit reads {FORMAT_VERSION}"
            )
        if type(document["steps"]) is not int or not isinstance(document["layers"], dict):
            raise PlanError("steps must be an integer and layers an object", where=where)
        layers = {name: _read_layer(entry, f"{where}, layer {name}") for name, entry in document["layers"].items()}
        return cls(document["steps"], layers)


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
