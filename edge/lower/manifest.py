"""What a bundle says about a lowered program: the manifest without its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from calib.plan import Mode
from edge.bundle import (
    FORMAT,
    KIT_VERSION,
    ConditionFacts,
    Manifest,
    MemoryNeeds,
    ModelFacts,
    RuntimeVersions,
    SamplerFacts,
)
from edge.operators import OPERATOR_SET_VERSION

if TYPE_CHECKING:
    from boards import Board
    from calib.calibration import Calibration
    from calib.models import PretrainedModel
    from calib.plan import Plan
    from edge.bundle import Golden
    from edge.lower.export import LoweredProgram

EXECUTORCH_VERSION = "1.5.1"


def describe(
    program: LoweredProgram, model: PretrainedModel, calibration: Calibration, board: Board, golden: Golden
) -> Manifest:
    """The manifest of a bundle for ``board``; ``pack_bundle`` adds the files.

    Args:
        program: lowered.
        model: what it was made from.
        calibration: how.
        board: gives name and slots.
        golden: the self-test.
    """
    channels, height, width = program.sample_shape
    needs = MemoryNeeds.estimate(
        state_bytes=program.state_bytes,
        activation_bytes=program.activation_bytes,
        program_bytes=program.program_bytes,
        slots=board.slots,
    )
    return Manifest(
        format=FORMAT,
        name=model.name,
        board=board.name,
        kit=KIT_VERSION,
        runtime=RuntimeVersions(EXECUTORCH_VERSION, OPERATOR_SET_VERSION),
        model=ModelFacts(model.name, channels, height, width, model.content_hash, condition_facts(model)),
        sampler=SamplerFacts(calibration.sampler, program.steps),
        plan=summarize(calibration.plan) | {"calibration": calibration.content_hash},
        memory=needs,
        slots=board.slots,
        files=(),
        golden=golden,
    )


def condition_facts(model: PretrainedModel) -> tuple[ConditionFacts, ...]:
    """Names, types and sizes of what a job brings beside its image, in the program's order."""
    types: dict[torch.dtype, Literal["float32", "int64"]] = {torch.float32: "float32", torch.int64: "int64"}
    return tuple(
        ConditionFacts(name, types[examples.dtype], (1, *examples.shape[1:]))
        for name, examples in model.conditions.items()
    )


def summarize(plan: Plan) -> dict[str, object]:
    """A plan in a few numbers: layers by mode, and layer passes over a whole job that starts at step 0."""
    layers = plan.layers.values()
    job = [[layer.anchor if layer.mode is Mode.DELTA else layer.rows[0], *layer.rows[1:]] for layer in layers]
    return {
        "layers": len(job),
        "direct_layers": sum(layer.mode is Mode.DIRECT for layer in layers),
        "residual_layers": sum(layer.uses_residual for layer in layers),
        "passes": sum(len(row.exponents) for rows in job for row in rows),
        "residual_passes": sum(len(row.residual_exponents) for rows in job for row in rows),
        "reused_steps": sum(not row.exponents for rows in job for row in rows),
    }
