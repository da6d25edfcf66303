"""The page: a template, filled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from calib.evaluate.result import Evaluation
from calib.evaluate.tables import feature_table, quality_tables
from calib.report.figures import pareto_chart, weights_chart, width_chart
from calib.report.findings import findings
from calib.report.grids import ERROR_GAIN, strips
from calib.report.maps import read_maps

if TYPE_CHECKING:
    import torch

TEMPLATE = "evaluation.html.j2"


def render_report(result: Evaluation, pictures: Mapping[str, torch.Tensor], stability: Path | None = None) -> str:
    """The page as one HTML text that needs nothing else.

    Args:
        result: the numbers.
        pictures: uint8 ``[N, C, H, W]`` by way; ``real`` may be among them.
        stability: a stability report (JSON) to show.
    """
    environment = Environment(
        loader=PackageLoader("calib.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(TEMPLATE).render(
        result=result,
        findings=findings(result),
        charts={"pareto": pareto_chart(result), "width": width_chart(result), "weights": weights_chart(result)},
        strips=strips(result, pictures),
        error_gain=ERROR_GAIN,
        tables=quality_tables(result),
        features=feature_table(result),
        stability=None if stability is None else read_maps(stability, result.model, result.sampler, result.steps),
    )


def write_report(
    path: Path, result: Evaluation, pictures: Mapping[str, torch.Tensor], stability: Path | None = None
) -> None:
    """Write ``render_report``'s page."""
    path.write_text(render_report(result, pictures, stability), encoding="utf-8")
