"""What a deployment says at its end: a table for people, JSON for machines, pictures for both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from calib.sampling import to_float
from edge.deploy.pictures import panel, to_heat, to_picture
from edge.deploy.verify import fewer_steps

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from edge.bundle import Bundle
    from edge.deploy.verify import Verdict

MIB = 1 << 20
TABLE_WIDTH = 140


def document(bundle: Bundle, verdicts: Sequence[Verdict], sent: int, seconds: dict[str, float]) -> dict[str, Any]:
    """The report as plain values: bytes, seconds, nanoseconds, dB (null where infinite)."""
    manifest = bundle.manifest
    return {
        "bundle": bundle.bundle_id,
        "board": manifest.board,
        "model": manifest.model.name,
        "sampler": manifest.sampler.name,
        "steps": manifest.sampler.steps,
        "fewer_steps": fewer_steps(manifest.sampler.steps),
        "bytes_sent": sent,
        "state_bytes": manifest.memory.state_bytes,
        "program_bytes": manifest.memory.program_bytes,
        "seconds": seconds,
        "jobs": [_job(verdict) for verdict in verdicts],
    }


def _job(verdict: Verdict) -> dict[str, Any]:
    meta = verdict.outcome.meta
    nanoseconds = meta["nanoseconds"]
    assert isinstance(nanoseconds, Sequence)
    return {
        "title": verdict.outcome.job.title,
        "seed": verdict.outcome.job.seed,
        "steps": meta["steps"],
        "passes": meta["passes"],
        "residual_passes": meta["residual_passes"],
        "macs": meta["macs"],
        "saturated": meta["saturated"],
        "milliseconds_per_step": sum(nanoseconds) / max(1, len(nanoseconds)) / 1e6,
        "peak_rss_bytes": meta["peak_rss"],
        "score": meta["score"],
        "novelty": meta["novelty"],
        "novel": meta["novel"],
        "bit_equal": verdict.bit_equal,
        "psnr_oracle_db": _finite(verdict.oracle_db),
        "psnr_oracle_least_db": verdict.least_db,
        "psnr_fp32_db": _finite(verdict.fp32_db),
        "psnr_static_int8_db": _finite(verdict.static_int8_db),
        "psnr_fewer_steps_db": None if verdict.fewer_steps_db is None else _finite(verdict.fewer_steps_db),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def print_table(report: dict[str, Any], out: Path) -> None:
    """The report on stderr, for people."""
    title = f"{report['model']} on {report['board']}, {report['sampler']}-{report['steps']}"
    table = Table(title=title, title_justify="left")
    fewer = f"FP32 {report['fewer_steps']} steps"
    headings = (
        "job",
        "steps",
        "passes",
        "+resid.",
        "ms/step",
        "peak MiB",
        "bits",
        "dB oracle",
        "dB FP32",
        "static INT8",
        fewer,
    )
    for heading in (*headings, "score", "novelty"):
        is_title = heading == "job"
        table.add_column(heading, justify="left" if is_title else "right", no_wrap=is_title)
    for job in report["jobs"]:
        table.add_row(
            job["title"],
            str(job["steps"]),
            str(job["passes"]),
            str(job["residual_passes"]),
            f"{job['milliseconds_per_step']:.0f}",
            f"{job['peak_rss_bytes'] / MIB:.0f}",
            {True: "equal", False: "DIFFER", None: "-"}[job["bit_equal"]],
            _decibel(job["psnr_oracle_db"]),
            _decibel(job["psnr_fp32_db"]),
            _decibel(job["psnr_static_int8_db"]),
            "" if job["score"] is not None else _decibel(job["psnr_fewer_steps_db"]),
            "" if job["score"] is None else f"{job['score']:.3f}",
            "" if job["novelty"] is None else f"{job['novelty']:.2f}{'  !' * job['novel']}",
        )
    console = Console(stderr=True, highlight=False)
    console.width = max(console.width, TABLE_WIDTH)
    console.print(table)
    console.print(
        "bits: the board against this machine's engine (-: the program is not exact); "
        "dB oracle: the board against the host's reference; dB FP32: the board against the float model. Beside it, "
        f"against the same: plain static INT8 at the same steps, and FP32 with {report['fewer_steps']} steps.",
        soft_wrap=True,
    )
    strange = [job["title"] for job in report["jobs"] if job["novel"]]
    if strange:
        console.print(
            f"! {', '.join(strange)}: unlike the pictures that calibration saw (novelty over 1); scores and maps of "
            "such pictures mean little",
            soft_wrap=True,
        )
    console.print(
        f"bundle {report['bundle'][:12]}: {report['bytes_sent'] / MIB:.1f} MiB sent, "
        f"state {report['state_bytes'] / MIB:.1f} MiB a slot, program {report['program_bytes'] / MIB:.1f} MiB",
        soft_wrap=True,
    )
    console.print(f"pictures: {out / 'jobs.png'}   report: {out / 'report.json'}", soft_wrap=True)


def _decibel(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f}"


def draw(verdicts: Sequence[Verdict], path: Path) -> None:
    """One row a job: generated beside FP32; inspected image, reconstruction, anomaly map, FP32."""
    rows: list[list[tuple[str, Image.Image]]] = []
    for verdict in verdicts:
        outcome = verdict.outcome
        row = [(f"{outcome.job.title}: board", to_picture(outcome.x)), ("FP32", to_picture(verdict.fp32.numpy()))]
        if outcome.job.image is not None:
            row.insert(0, ("inspected", to_picture(to_float(outcome.job.image))))
        if outcome.anomalies is not None:
            row.append((f"anomaly {outcome.meta['score']:.3f}", to_heat(outcome.anomalies)))
        rows.append(row)
    panel(rows, path)
