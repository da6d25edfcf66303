"""An evaluation as tables: the same for a terminal and for the report."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.table import Table

from calib.evaluate.intervals import Interval
from calib.evaluate.result import Evaluation, Row

TITLES = {
    "float": "Float",
    "unmodulated": "Ordinary quantization of activations (INT8 weights)",
    "modulated": "Modulated, uniform plan (weights rounded to nearest unless said)",
    "weights": "Ways of making the weights",
    "planned": "Planned",
    "fewer steps": "Fewer float steps",
}
HEADINGS = (
    "way",
    "MACs (full steps)",
    "passes + residual",
    "dB to FP32 (95%)",
    "median",
    "worst",
    "dB to reference",
    "SSIM",
    "equal px",
    "within 1",
    "saturated",
)
FEATURE_HEADINGS = ("way", "Fréchet to FP32", "kernel x1000 to FP32", "Fréchet to real", "kernel x1000 to real")


@dataclass(frozen=True)
class TextTable:
    """Cells as text, the first column the row's name."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def quality_tables(result: Evaluation) -> list[TextTable]:
    """One table a group of ways."""
    tables = []
    for group, title in TITLES.items():
        rows = tuple(_cells(row) for row in result.rows if row.group == group)
        if rows:
            tables.append(TextTable(title, HEADINGS, rows))
    return tables


def feature_table(result: Evaluation) -> TextTable | None:
    """Feature distances of all ways; None where they were not measured."""
    if result.feature_network is None:
        return None
    rows = tuple(
        (
            row.name,
            interval(row.features.frechet_float, 1),
            interval(row.features.kernel_float, 2, scale=1000),
            interval(row.features.frechet_real, 1),
            interval(row.features.kernel_real, 2, scale=1000),
        )
        for row in result.rows
    )
    title = (
        f"Distances on {result.feature_network} features, {len(result.seeds)} images, {result.real_images} real ones"
    )
    return TextTable(title, FEATURE_HEADINGS, rows)


def to_tables(result: Evaluation) -> list[Table]:
    """The evaluation for a terminal."""
    features = feature_table(result)
    return [_rich(table) for table in (*quality_tables(result), *([features] if features is not None else []))]


def decibels(value: float) -> str:
    """Decibels with one digit, or ``same`` where the images are equal."""
    return f"{value:.1f}" if math.isfinite(value) else "same"


def interval(value: Interval | None, digits: int, scale: float = 1.0) -> str:
    """Estimate and half width of its interval."""
    if value is None:
        return ""
    if not math.isfinite(value.mean):
        return "same"
    half = (value.high - value.low) / 2
    return f"{value.mean * scale:.{digits}f} ± {half * scale:.{digits}f}"


def _cells(row: Row) -> tuple[str, ...]:
    passes = "" if row.passes is None else f"{row.passes:.2f} + {row.residual_passes or 0.0:.2f}"
    return (
        row.name,
        f"{row.full_steps:.1f}",
        passes,
        interval(row.psnr, 1),
        decibels(row.psnr_median),
        decibels(row.psnr_min),
        interval(row.psnr_reference, 1),
        f"{row.ssim.mean:.4f}",
        f"{row.same_pixels.mean:.1%}",
        f"{row.within_one.mean:.2%}",
        "" if row.saturated is None else f"{row.saturated:.4%}",
    )


def _rich(table: TextTable) -> Table:
    shown = Table(title=table.title, title_justify="left")
    for k, heading in enumerate(table.headings):
        shown.add_column(heading, justify="right" if k else "left", no_wrap=k == 0)
    for row in table.rows:
        shown.add_row(*row)
    return shown
