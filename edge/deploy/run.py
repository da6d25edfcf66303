"""The whole of a deployment, in order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from calib.adapters import guided
from calib.samplers import build_sampler
from calib.sources import read_model
from edge.deploy.connect import connect
from edge.deploy.jobs import read_references, wanted_jobs
from edge.deploy.prepare import prepare
from edge.deploy.stream import bring, run_jobs
from edge.deploy.summary import document, draw, print_table
from edge.deploy.verify import require_agreement, verify

if TYPE_CHECKING:
    from boards import Board
    from edge.console import Stages
    from edge.deploy.options import DeployOptions


def deploy(options: DeployOptions, board: Board, port: str | None, stages: Stages) -> dict[str, Any]:
    """Prepare, connect, stream, run, verify, report.

    Args:
        options: checked.
        board: the one they name.
        port: where it is, as ``choose_port`` says; None for a virtual one.
        stages: shows progress.

    Returns:
        The report, as ``edge.deploy.summary.document`` makes it.

    Raises:
        KitError: whatever refused, with its exit code.
    """
    model = read_model(options.model)
    if options.guidance is not None:
        model = guided(model, options.guidance)
    if options.references is not None:
        model = replace(model, references=read_references(options.references, model.sample_shape))
    sampler = build_sampler(options.sampler, options.steps, model.schedule)
    shape = model.sample_shape
    jobs = wanted_jobs(options, model, sampler.steps)
    prepared = prepare(model, sampler, options, board, stages)
    with connect(port, options, board, stages) as client:
        sent = bring(client, prepared.bundle, stages)
        outcomes = run_jobs(client, jobs, shape, stages)
    verdicts = verify(prepared, outcomes, stages)
    options.out.mkdir(parents=True, exist_ok=True)
    draw(verdicts, options.out / "jobs.png")
    report = document(prepared.bundle, verdicts, sent, stages.seconds)
    print_table(report, options.out)
    require_agreement(verdicts)
    return report
