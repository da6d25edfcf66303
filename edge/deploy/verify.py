"""Is it right? The device's images against the host's oracle (the reference arithmetic) and the FP32 model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from calib.evaluate import psnr
from calib.noise import noise
from calib.sampling import sample, start_generation, start_inspection, to_float
from edge.errors import DeviceError
from edge.tolerance import least_agreement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.console import Stages
    from edge.deploy.prepare import Prepared
    from edge.deploy.stream import Job, Outcome


@dataclass(frozen=True)
class Verdict:
    """One job's outcome beside the two references; PSNR in dB, peak 2.0; ``least_db`` is what
    ``oracle_db`` must reach. ``fp32``: float32 [C, H, W].
    """

    outcome: Outcome
    oracle_db: float
    least_db: float
    fp32_db: float
    fp32: torch.Tensor


def verify(prepared: Prepared, outcomes: Sequence[Outcome], stages: Stages) -> list[Verdict]:
    """Run the same jobs on the host, modulated and in FP32, and compare."""
    verdicts = []
    with stages.stage("compare with oracle and FP32") as report:
        for done, outcome in enumerate(outcomes):
            x = _input(prepared, outcome.job)
            oracle = sample(prepared.modulated, prepared.sampler, x, outcome.job.start)
            fp32 = sample(prepared.model.denoiser, prepared.sampler, x, outcome.job.start)
            device = torch.from_numpy(outcome.x.copy())[None]
            oracle_db, fp32_db = float(psnr(device, oracle)), float(psnr(device, fp32))
            least = least_agreement(float(psnr(oracle, fp32)))
            verdicts.append(Verdict(outcome, oracle_db, least, fp32_db, fp32[0]))
            report(done + 1, len(outcomes))
    return verdicts


def require_agreement(verdicts: Sequence[Verdict]) -> None:
    """Refuse a deployment whose device does not compute what the oracle does.

    Raises:
        DeviceError: names the job that is too far off.
    """
    for verdict in verdicts:
        if verdict.oracle_db < verdict.least_db:
            raise DeviceError(
                f"{verdict.oracle_db:.1f} dB against the host's oracle, {verdict.least_db:.0f} dB are needed",
                where=f"job {verdict.outcome.job.title}",
                mend="the pictures and the report show it; deploy again, and report it if it stays",
            )


def _input(prepared: Prepared, job: Job) -> torch.Tensor:
    """What the job's first step starts from, float32 [1, C, H, W]."""
    seeded = torch.from_numpy(noise(job.seed, prepared.model.sample_shape))[None]
    if job.image is None:
        return start_generation(prepared.sampler, seeded)
    return start_inspection(prepared.sampler, torch.from_numpy(to_float(job.image))[None], seeded, job.start)
