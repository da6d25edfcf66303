"""Stability maps: what each layer does at each step, as inline SVG with the cells as one embedded picture each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from calib.errors import CalibrationError
from calib.report.figures import STYLE, to_svg

ORDERS = 6
"""Orders of magnitude that a logarithmic map spans at most; what lies below has its darkest colour."""
NOTHING = "#eceef1"
"""The colour of zeros in a logarithmic map, and of steps that have no value."""


@dataclass(frozen=True)
class Map:
    """One quantity of ``calib.stability.LayerStability`` over layers and steps.

    Attributes:
        field: its name there.
        title: for a person.
        logarithmic: whether colours go by orders of magnitude.
    """

    field: str
    title: str
    logarithmic: bool


MAPS = (
    Map("relative_change", "change of the input since the last step, relative to the input", logarithmic=True),
    Map("lattice_bits", "lattice bits that the largest change takes", logarithmic=False),
    Map("zero", "share of elements whose code is zero", logarithmic=False),
    Map("saturated", "share of elements that were clamped", logarithmic=True),
    Map("sensitivity", "mean square error of the image for errors of variance 1 here", logarithmic=True),
)


@dataclass(frozen=True)
class StabilityMaps:
    """What the report shows of a stability report.

    Attributes:
        title: model, sampler and steps.
        pays: whether modulation does.
        reasons: why.
        verdicts: how many layers have each verdict.
        charts: title and SVG of each map.
    """

    title: str
    pays: bool
    reasons: tuple[str, ...]
    verdicts: Mapping[str, int]
    charts: tuple[tuple[str, str], ...]


def read_maps(path: Path, model: str, sampler: str, steps: int) -> StabilityMaps:
    """Draw a stability report's JSON (``python -m calib stability --json``).

    Args:
        path: the file.
        model: its name in the evaluation that it must be about.
        sampler: of that evaluation.
        steps: of that evaluation.

    Raises:
        CalibrationError: missing, not JSON, no stability report, or one of something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        layers: list[dict[str, Any]] = document["layers"]
        names = [str(layer["name"]) for layer in layers]
        charts = tuple(
            (chosen.title, _chart(chosen, names, [layer[chosen.field] for layer in layers]))
            for chosen in MAPS
            if _says_something([layer[chosen.field] for layer in layers])
        )
        kinds = [str(layer["verdict"]) for layer in layers]
        title = f"{document['model']}, {document['sampler']}, {document['steps']} steps"
        wanted = f"{model}, {sampler}, {steps} steps"
        if title != wanted:
            mend = "analyze what was evaluated: python -m calib stability --json"
            raise CalibrationError(f"the report is about {title}, not about {wanted}", where=str(path), mend=mend)
        verdicts = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
        return StabilityMaps(title, bool(document["pays"]), tuple(document["reasons"]), verdicts, charts)
    except FileNotFoundError as error:
        raise CalibrationError("no stability report is here", where=str(path), mend="make one first") from error
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise CalibrationError(f"no stability report: {error}", where=str(path)) from error


def _says_something(rows: Sequence[Sequence[float]]) -> bool:
    return bool(rows) and any(any(row) for row in rows)


def _chart(chosen: Map, names: Sequence[str], rows: Sequence[Sequence[float | None]]) -> str:
    """Layers from top to bottom as they are called, steps from left to right."""
    values, norm = scaled(chosen, rows)
    with mpl.rc_context(STYLE | {"axes.grid": False, "font.size": 8}):
        figure = Figure(figsize=(8.2, 0.9 + 0.105 * len(names)), layout="constrained")
        axes = figure.subplots()
        colours = mpl.colormaps["viridis"].with_extremes(bad=NOTHING)
        drawn = axes.imshow(values, aspect="auto", interpolation="nearest", cmap=colours, norm=norm)
        every = max(1, len(names) // 36)
        axes.set_yticks(range(0, len(names), every), [_short(name) for name in names[::every]], fontsize=6.5)
        axes.set_xlabel("step")
        figure.colorbar(drawn, ax=axes, pad=0.01, fraction=0.03)
        return to_svg(figure)


def _short(name: str, most: int = 44) -> str:
    return name if len(name) <= most else "…" + name[-most + 1 :]


def scaled(
    chosen: Map, rows: Sequence[Sequence[float | None]]
) -> tuple[np.ma.MaskedArray[Any, np.dtype[np.float64]], Normalize]:
    """The cells, masked where there is nothing to colour, and from them to the colours' [0, 1].

    Args:
        chosen: says how colours go.
        rows: of layers, by step; not all zero where colours go by orders of magnitude.
    """
    values = np.ma.masked_invalid(np.array([[np.nan if value is None else value for value in row] for row in rows]))
    if not chosen.logarithmic:
        return values, Normalize(float(values.min()), float(values.max()))
    values = np.ma.masked_equal(values, 0.0)
    most = float(values.max())
    return values, LogNorm(max(float(values.min()), most * 10.0**-ORDERS), most * 1.001, clip=True)
