"""``python -m calib plan`` and ``python -m calib stability``."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from boards import load_board
from calib.calibration import CalibrationConfig, calibrate, calibration_key, check_made_for
from calib.errors import CalibrationError
from calib.options import (
    DEFAULTS,
    ModelOption,
    ObservedOption,
    SamplerOption,
    StepsOption,
    Tell,
    bars,
    load,
)
from calib.planner.candidate import Candidate, planned
from calib.planner.config import PlannerConfig
from calib.planner.search import Planning, plan
from calib.samplers import Sampler, build_sampler
from calib.stability import StabilityReport, analyze
from calib.storage import MANIFEST, load_calibration, save_calibration

if TYPE_CHECKING:
    from calib.adapters import PretrainedModel
    from calib.calibration import Calibration

UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
TABLE_WIDTH = 100
MOST_LAYERS = 20

StoredOption = Annotated[
    Path | None, typer.Option("--calibration", help="stored calibration to start from; a new one where not given")
]
JsonOption = Annotated[bool, typer.Option("--json", help="write JSON on stdout")]


def parse_bytes(text: str) -> int:
    """A number of bytes with a binary unit, ``16MiB``.

    Raises:
        CalibrationError: something else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2] not in UNITS or float(match[1]) <= 0:
        raise CalibrationError(f"{text!r} is no size", where="--state-memory", mend="write it as 16MiB")
    return int(float(match[1]) * UNITS[match[2]])


def plan_command(
    *,
    out: Annotated[Path | None, typer.Option(help="folder to write the planned calibration to")] = None,
    model: ModelOption = None,
    sampler: SamplerOption = "ddim",
    steps: StepsOption = 50,
    psnr: Annotated[float | None, typer.Option(help="least quality, dB; the cheapest such plan is chosen")] = None,
    cost: Annotated[
        float | None, typer.Option(help="most cost, a share of one pass of every layer at every step")
    ] = None,
    state_memory: Annotated[str | None, typer.Option(help="most state of one job, such as 16MiB")] = None,
    board: Annotated[
        str | None, typer.Option(help="count cost as this board's kernels do; MACs where not given")
    ] = None,
    reference_steps: Annotated[
        int | None, typer.Option(help="measure against FP32 with so many steps; the plan's own where not given")
    ] = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="hold reused outputs, at half the memory of extrapolating")
    ] = False,
    calibration: StoredOption = None,
    calibration_seeds: ObservedOption = DEFAULTS.seeds,
    progress_folder: Annotated[
        Path | None, typer.Option("--resume", help="folder that remembers what was measured")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Find the best plans for a model and sampler, print the Pareto front, and store the one that meets the target."""
    loaded = load(model)
    tables = build_sampler(sampler, steps, loaded.schedule)
    settings = PlannerConfig(
        state_memory=None if state_memory is None else parse_bytes(state_memory),
        extrapolates=not hold,
        reference_steps=reference_steps,
    )
    if cost is not None and cost not in settings.budgets:
        settings = dataclasses.replace(settings, budgets=tuple(sorted({*settings.budgets, cost})))
    board_cost = load_board(board).cost if board is not None else None
    with bars() as tell:
        made = _calibration(loaded, tables, calibration, calibration_seeds, tell, kept=progress_folder)
        found = plan(loaded, tables, made, settings, board_cost=board_cost, journal=progress_folder, progress=tell)
    chosen = found.choose(psnr=psnr, cost=cost)
    if out is not None:
        save_calibration(planned(made, chosen.plan), out)
    if json_output:
        sys.stdout.write(json.dumps(to_document(found, chosen), indent=1) + "\n")
    else:
        Console(width=max(Console().width, TABLE_WIDTH)).print(front_table(found, chosen, loaded.name, tables))


def stability_command(
    *,
    model: ModelOption = None,
    sampler: SamplerOption = "ddim",
    steps: StepsOption = 50,
    seeds: Annotated[int, typer.Option(help="noise seeds to analyze")] = 4,
    calibration: StoredOption = None,
    calibration_seeds: ObservedOption = DEFAULTS.seeds,
    json_output: JsonOption = False,
) -> None:
    """Show how each layer changes from step to step, what errors there do to the image, and whether modulation pays."""
    loaded = load(model)
    tables = build_sampler(sampler, steps, loaded.schedule)
    with bars() as tell:
        made = _calibration(loaded, tables, calibration, calibration_seeds, tell)
        report = analyze(loaded, tables, made, seeds=seeds, progress=lambda done, total: tell("analysis", done, total))
    if json_output:
        sys.stdout.write(stability_json(report) + "\n")
        return
    shown = Console(width=max(Console().width, TABLE_WIDTH))
    shown.print(stability_table(report))
    shown.print(f"modulation {'pays' if report.pays else 'does not pay'}: {'; '.join(report.reasons)}")


def _calibration(
    model: PretrainedModel, sampler: Sampler, stored: Path | None, seeds: int, tell: Tell, *, kept: Path | None = None
) -> Calibration:
    """The stored calibration, checked against what it is used with, or a new one, remembered in ``kept``."""
    if stored is None:
        config = CalibrationConfig(seeds=seeds)
        own = None if kept is None else kept / f"calibration-{calibration_key(model, sampler, config)[:16]}"
        if own is not None and (own / MANIFEST).is_file():
            return load_calibration(own)
        made = calibrate(model, sampler, config, lambda done, total: tell("calibration", done, total))
        if own is not None:
            save_calibration(made, own)
        return made
    found = load_calibration(stored)
    check_made_for(found, model, sampler, where=str(stored))
    return found


def to_document(found: Planning, chosen: Candidate) -> dict[str, Any]:
    """The planning as JSON values; the plans themselves are stored with ``--out``."""

    def row(each: Candidate) -> dict[str, Any]:
        return {
            "full_steps": each.full_steps,
            "passes": each.passes,
            "cost": each.cost,
            "state_bytes": each.state_bytes,
            "psnr": _finite(each.psnr),
            "psnr_min": _finite(each.psnr_min),
            "psnr_pooled": _finite(each.psnr_pooled),
            "within_one": sum(each.within_one) / len(each.within_one),
            "points": len(each.plan.points),
            "chosen": each is chosen,
        }

    return {
        "steps": found.calibration.plan.steps,
        "sampler": found.calibration.sampler,
        "regions": list(found.regions),
        "front": [row(each) for each in found.front],
        "candidates": [row(each) for each in found.candidates],
    }


def front_table(found: Planning, chosen: Candidate, model: str, sampler: Sampler) -> Table:
    """The Pareto front for a person."""
    table = Table(title=f"{model}, {sampler.name}-{sampler.steps}: Pareto front of plans", title_justify="left")
    for heading in (
        "full steps",
        "passes/step",
        "cost",
        "mean dB",
        "worst dB",
        "±1 level",
        "state MiB",
        "reuse points",
        "",
    ):
        table.add_column(heading, justify="right")
    for each in found.front:
        table.add_row(
            f"{each.full_steps:.1f}",
            f"{each.passes:.3f}",
            f"{each.cost:.3f}",
            f"{each.psnr:.1f}",
            f"{each.psnr_min:.1f}",
            f"{sum(each.within_one) / len(each.within_one):.2%}",
            f"{each.state_bytes / 2**20:.1f}",
            str(len(each.plan.points)),
            "chosen" if each is chosen else "",
        )
    return table


def stability_json(report: StabilityReport) -> str:
    """The report as JSON; an infinite PSNR is null."""
    document = dataclasses.asdict(report)
    for part in (document, *document["layers"]):
        for key in ("delta_psnr", "direct_psnr"):
            part[key] = _finite(part[key])
    return json.dumps(document, indent=1)


def stability_table(report: StabilityReport) -> Table:
    """The layers that matter most for the image, for a person."""
    title = f"{report.model}, {report.sampler}-{report.steps}: the layers whose errors cost the image most"
    table = Table(title=title, title_justify="left")
    table.add_column("layer")
    for heading in ("MACs", "change", "bits", "zero", "saturated", "delta dB", "direct dB", "verdict"):
        table.add_column(heading, justify="right")
    for layer in sorted(report.layers, key=lambda each: each.delta_psnr)[:MOST_LAYERS]:
        later = slice(1, None) if report.steps > 1 else slice(None)
        count = len(layer.zero[later])
        table.add_row(
            layer.name,
            f"{layer.macs / 1e6:.1f} M",
            f"{sum(layer.relative_change[later]) / count:.1%}",
            f"{min(layer.lattice_bits[later])}..{max(layer.lattice_bits[later])}",
            f"{sum(layer.zero[later]) / count:.0%}",
            f"{max(layer.saturated):.2%}",
            f"{layer.delta_psnr:.1f}",
            f"{layer.direct_psnr:.1f}",
            layer.verdict.value,
        )
    return table


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
