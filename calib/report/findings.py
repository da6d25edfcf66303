"""What an evaluation says in sentences, and which of the project's targets it meets."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from calib.evaluate.result import Evaluation, Row

A6_LOSS, A4_GAIN, A6_OVER_STATIC, PLAN_GAIN = 1.0, 15.0, 10.0, 4.0
FLOOR, EQUAL_PIXELS, WITHIN_ONE, MOST_PASSES = 62.0, 0.85, 0.999, 1.15


@dataclass(frozen=True)
class Finding:
    """One line of the summary.

    Attributes:
        claim: what should hold.
        measured: what was measured.
        holds: whether it does; None where it is only told.
    """

    claim: str
    measured: str
    holds: bool | None


def findings(result: Evaluation) -> list[Finding]:
    """Everything that this evaluation has the rows for."""
    rows = {row.name: row for row in result.rows}
    found = [
        _quality(rows.get("modulated A8 + residual plane"), "with the residual plane"),
        _narrower(rows),
        _over_ordinary(rows),
        _six_over_static(rows),
        *_without_compensation(rows),
        *(_plan(row, result) for row in result.rows if row.group == "planned"),
    ]
    return [finding for finding in found if finding is not None]


def best_rival(row: Row, result: Evaluation) -> Row | None:
    """The float way that is nearest to the reference among those that cost no more than half a step above ``row``."""
    affordable = [
        rival for rival in result.rows if rival.group == "fewer steps" and rival.full_steps <= row.full_steps + 0.5
    ]
    return max(affordable, key=lambda rival: rival.psnr_reference.mean, default=None)


def _quality(row: Row | None, title: str) -> Finding | None:
    if row is None or row.passes is None or row.residual_passes is None:
        return None
    passes = row.passes + row.residual_passes
    holds = (
        row.psnr.mean >= FLOOR
        and passes <= MOST_PASSES
        and row.same_pixels.mean >= EQUAL_PIXELS
        and row.within_one.mean >= WITHIN_ONE
    )
    return Finding(
        f"{title}: at least {FLOOR:g} dB to FP32, {EQUAL_PIXELS:.0%} of the pixels equal and "
        f"{WITHIN_ONE:.1%} within one level, at most {MOST_PASSES} passes a step",
        f"{row.psnr.mean:.1f} dB, {row.same_pixels.mean:.1%} equal, {row.within_one.mean:.2%} within one, "
        f"{passes:.2f} passes",
        holds,
    )


def _narrower(rows: dict[str, Row]) -> Finding | None:
    wide, narrow = rows.get("modulated A8"), rows.get("modulated A6")
    if wide is None or narrow is None:
        return None
    loss, text = _compared(wide, narrow)
    return Finding(
        f"without the residual plane, 6-bit changes lose less than {A6_LOSS:g} dB against 8-bit ones",
        text,
        loss < A6_LOSS,
    )


def _over_ordinary(rows: dict[str, Row]) -> Finding | None:
    modulated = rows.get("modulated A4")  # weights rounded to nearest, as the ordinary ones'
    ordinary = _best(rows, ("static A4, min-max", "static A4, MSE", "dynamic A4"))
    if modulated is None or ordinary is None:
        return None
    gain, text = _compared(modulated, ordinary)
    return Finding(
        f"4-bit changes are at least {A4_GAIN:g} dB above the best ordinary 4-bit quantization",
        f"{text}, {ordinary.name}",
        gain >= A4_GAIN,
    )


def _six_over_static(rows: dict[str, Row]) -> Finding | None:
    modulated = rows.get("modulated A6 + residual plane")
    ordinary = _best(rows, ("static A8, min-max", "static A8, percentile 99.99", "static A8, MSE"))
    if modulated is None or ordinary is None:
        return None
    gain = modulated.psnr.mean - ordinary.psnr.mean
    return Finding(
        f"with the residual plane, 6-bit changes stay at least {A6_OVER_STATIC:g} dB above static INT8",
        f"{gain:.1f} dB ({modulated.psnr.mean:.1f} against {ordinary.psnr.mean:.1f}, {ordinary.name})",
        gain >= A6_OVER_STATIC,
    )


def _without_compensation(rows: dict[str, Row]) -> list[Finding]:
    found = []
    for name, with_it in rows.items():
        without = rows.get(f"{name}, no compensation")
        if without is not None:
            _, text = _compared(with_it, without)
            found.append(Finding(f"what {name} loses without error compensation", text, None))
    return found


def _plan(row: Row, result: Evaluation) -> Finding | None:
    """A plan that saves work has fewer float steps for a rival; one that spends more is there for its quality."""
    if row.full_steps >= row.steps:
        return _quality(row, row.name)
    rival = best_rival(row, result)
    if rival is None:
        return None
    gain = row.psnr_reference.mean - rival.psnr_reference.mean
    return Finding(
        f"{row.name} ({row.full_steps:.1f} full steps' MACs) is at least {PLAN_GAIN:g} dB nearer to the reference "
        "than the best solver with fewer float steps",
        f"{gain:+.1f} dB ({row.psnr_reference.mean:.1f} against {rival.psnr_reference.mean:.1f}, {rival.name})",
        gain >= PLAN_GAIN,
    )


def _compared(better: Row, worse: Row) -> tuple[float, str]:
    """How much nearer to FP32 one way is than another, dB: the median over the seeds' own differences; and in words.

    The seeds are the same, so that what one of them costs every way (it lies between two images) cancels.
    """
    gains = [a - b for a, b in zip(better.psnr_by_seed, worse.psnr_by_seed, strict=True)]
    gain = statistics.median(gains)
    return gain, (
        f"{gain:.1f} dB (median of the seeds' differences; their mean {statistics.fmean(gains):.1f}; "
        f"{better.psnr.mean:.1f} against {worse.psnr.mean:.1f})"
    )


def _best(rows: dict[str, Row], names: tuple[str, ...]) -> Row | None:
    found = [rows[name] for name in names if name in rows and math.isfinite(rows[name].psnr.mean)]
    return max(found, key=lambda row: row.psnr_median, default=None)
