"""What a bundle says about a lowered program: the manifest without its files, and the golden output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from calib.noise import noise
from calib.plan import Mode
from calib.sampling import sample, start_inspection
from edge.bundle import (
    FORMAT,
    GOLDEN_STEPS,
    KIT_VERSION,
    Golden,
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
    from calib.modulated import ModulatedModel
    from calib.plan import Plan
    from calib.samplers import Sampler
    from edge.lower.export import LoweredProgram

EXECUTORCH_VERSION = "1.5.1"
MIN_PSNR_DB = 60.0


def golden_test(seed: int, steps: int) -> Golden:
    """The self-test of a program of ``steps`` steps: its last ``GOLDEN_STEPS`` on an all-zero image."""
    return Golden(seed, max(0, steps - GOLDEN_STEPS), "zeros", MIN_PSNR_DB)


def golden_output(golden: Golden, modulated: ModulatedModel, sampler: Sampler, sample_shape: tuple[int, ...]) -> bytes:
    """What the reference makes of the self-test: float32 little endian [C, H, W]."""
    x = start_inspection(
        sampler,
        torch.zeros(1, *sample_shape),
        torch.from_numpy(noise(golden.seed, sample_shape))[None],
        golden.start,
    )
    return sample(modulated, sampler, x, golden.start).numpy().astype("<f4").tobytes()


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
        model=ModelFacts(model.name, channels, height, width, model.content_hash),
        sampler=SamplerFacts(calibration.sampler, program.steps),
        plan=summarize(calibration.plan) | {"calibration": calibration.content_hash},
        memory=needs,
        slots=board.slots,
        files=(),
        golden=golden,
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
