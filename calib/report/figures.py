"""Charts of an evaluation as inline SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

from calib.evaluate.result import Evaluation, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#2563a8", "#d9822b", "#2e8b57", "#b3374a", "#7a4fa3", "#7a7f87"
SOLVER_COLOURS = (GREY, "#a8743a", "#4f8f8b", "#8d6aa8", "#9a9a4d")
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa0a8",
    "axes.grid": True,
    "grid.color": "#e4e6ea",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "calib.report",
}


def pareto_chart(result: Evaluation) -> str | None:
    """Cost against distance from the many-step reference: what a plan has to beat, and what does; None without rivals.

    The x axis is logarithmic; whiskers are 95% intervals.
    """
    rivals = [row for row in result.rows if row.group == "fewer steps"]
    if not rivals:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 4.4), layout="constrained")
        axes = figure.subplots()
        for colour, solver in zip(SOLVER_COLOURS, sorted({row.sampler for row in rivals}), strict=False):
            points = sorted((row for row in rivals if row.sampler == solver), key=lambda row: row.full_steps)
            _whiskers(axes, points, colour, f"FP32, {solver}, fewer steps", line=True)
        devices = [row for row in result.rows if row.group == "modulated" and row.bits == 8 and _runs_on_device(row)]
        _whiskers(axes, devices, BLUE, "modulated INT8, uniform plan", marker="s")
        planned = sorted((row for row in result.rows if row.group == "planned"), key=lambda row: row.full_steps)
        _whiskers(axes, planned, ORANGE, "planned INT8", marker="D")
        for row in planned:
            axes.annotate(
                row.name.removeprefix("plan "),
                (row.full_steps, row.psnr_reference.mean),
                xytext=(6, 6),
                textcoords="offset points",
                color=ORANGE,
            )
        static = [row for row in result.rows if row.group == "unmodulated" and row.bits == 8]
        _whiskers(axes, static, RED, "ordinary INT8", marker="v")
        axes.set_xscale("log")
        ticks = [3, 4, 6, 8, 11, 16, 25, 50, 100]
        low, high = axes.get_xlim()
        axes.set_xticks([tick for tick in ticks if low <= tick <= high], minor=False)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda *_: "")
        axes.set_xlabel("multiply-accumulates of an image, in full steps of the model")
        axes.set_ylabel(f"dB to FP32 ({result.reference})")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return to_svg(figure)


def _runs_on_device(row: Row) -> bool:
    return "no compensation" not in row.name


def width_chart(result: Evaluation) -> str | None:
    """Bits of the codes against dB to the float model, one line a kind; None where only one width was compared."""
    widths = sorted(
        {row.bits for row in result.rows if row.group == "modulated" and row.bits is not None}, reverse=True
    )
    if len(widths) < 2:
        return None
    kinds = [
        ("modulated + residual plane", GREEN, [f"modulated A{bits} + residual plane" for bits in widths]),
        (
            "modulated, GPTQ weights",
            PURPLE,
            ["modulated A8, GPTQ", *[f"modulated A{b}, GPTQ" for b in widths if b != 8]],
        ),
        ("modulated", BLUE, [f"modulated A{bits}" for bits in widths]),
        ("modulated, no error compensation", ORANGE, [f"modulated A{bits}, no compensation" for bits in widths]),
        ("dynamic, not modulated", RED, [f"dynamic A{bits}" for bits in widths]),
        ("static (MSE range), not modulated", GREY, [f"static A{bits}, MSE" for bits in widths]),
    ]
    rows = {row.name: row for row in result.rows}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 4.0), layout="constrained")
        axes = figure.subplots()
        for label, colour, names in kinds:
            found = [rows[name] for name in names if name in rows and math.isfinite(rows[name].psnr_median)]
            if not found:
                continue
            x = [widths.index(row.bits) for row in found if row.bits is not None]
            axes.plot(x, [row.psnr_median for row in found], "o-", color=colour, label=label, linewidth=1.6)
            for k, row in zip(x, found, strict=True):
                axes.plot([k] * len(row.psnr_by_seed), row.psnr_by_seed, ".", color=colour, alpha=0.25, markersize=4)
        axes.set_xticks(range(len(widths)), [f"A{bits}" for bits in widths])
        axes.set_xlabel("bits of the codes of changes (modulated) or inputs (not modulated)")
        axes.set_ylabel("dB to FP32, median of the seeds")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return to_svg(figure)


def weights_chart(result: Evaluation) -> str | None:
    """Every seed of every way of making weights, at 8-bit changes; None where they were not compared."""
    rows = {row.name: row for row in result.rows}
    names = ["modulated A8", *[row.name for row in result.rows if row.group == "weights" and row.bits == 8]]
    names.insert(1, "modulated A8 + residual plane")
    found = [rows[name] for name in names if name in rows]
    if len(found) < 3:
        return None
    found.sort(key=lambda row: row.psnr_median)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 0.6 + 0.34 * len(found)), layout="constrained")
        axes = figure.subplots()
        for k, row in enumerate(found):
            colour = GREEN if "residual" in row.name else BLUE
            axes.plot(row.psnr_by_seed, [k] * len(row.psnr_by_seed), "o", color=colour, alpha=0.35, markersize=5)
            axes.plot([row.psnr_median], [k], "|", color=colour, markersize=16, markeredgewidth=2.5)
        labels = [row.name.removeprefix("modulated A8").removeprefix(", ") or "round to nearest" for row in found]
        axes.set_yticks(range(len(found)), [label.removeprefix(" ") for label in labels])
        axes.set_xlabel("dB to FP32: each seed, and the median")
        return to_svg(figure)


def _whiskers(
    axes: Axes, rows: Sequence[Row], colour: str, label: str, *, marker: str = "o", line: bool = False
) -> None:
    shown = [row for row in rows if math.isfinite(row.psnr_reference.mean)]
    if not shown:
        return
    means = [row.psnr_reference.mean for row in shown]
    ends = [
        [row.psnr_reference.mean - row.psnr_reference.low for row in shown],
        [row.psnr_reference.high - row.psnr_reference.mean for row in shown],
    ]
    axes.errorbar(
        [row.full_steps for row in shown],
        means,
        yerr=ends,
        fmt=f"{marker}-" if line else marker,
        color=colour,
        label=label,
        linewidth=1.3,
        markersize=5 if line else 7,
        elinewidth=0.8,
        capsize=2,
    )


def to_svg(figure: Figure) -> str:
    """The figure without the XML head, for use inside HTML."""
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None})
    text = target.getvalue()
    return text[text.index("<svg") :]
