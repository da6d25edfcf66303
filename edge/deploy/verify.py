"""Is it right, and is it worth it? The device's images against the host's oracle (the reference arithmetic) and FP32,
beside what plain INT8 or fewer FP32 steps would have given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from calib.baselines import static_quantized
from calib.evaluate import psnr
from calib.noise import noise
from calib.samplers import build_sampler
from calib.sampling import sample, start_generation, start_inspection, to_float
from edge.deploy.predict import bit_equal
from edge.errors import DeviceError, EngineError
from edge.tolerance import least_agreement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calib.adapters import PretrainedModel
    from calib.samplers import Sampler
    from edge.console import Stages
    from edge.deploy.prepare import Prepared
    from edge.deploy.stream import Job, Outcome


@dataclass(frozen=True)
class Verdict:
    """One job's outcome beside the two references; PSNR in dB, peak 2.0; ``least_db`` is what
    ``oracle_db`` must reach. ``fp32``: float32 [C, H, W]. ``static_int8_db``: the same model in ordinary static INT8
    against FP32, on the host; ``fewer_steps_db``: FP32 with half the steps against FP32, None for inspections (half
    of their few steps would start from another noise level). ``bit_equal``: whether the device's result is to the bit
    what this machine's engine computes; None where the program is not exact.
    """

    outcome: Outcome
    bit_equal: bool | None
    oracle_db: float
    least_db: float
    fp32_db: float
    static_int8_db: float
    fewer_steps_db: float | None
    fp32: torch.Tensor


def verify(prepared: Prepared, outcomes: Sequence[Outcome], stages: Stages) -> list[Verdict]:
    """Run the same jobs on the host: in its engine, modulated, in FP32 and in its two rivals; compare."""
    equal: Sequence[bool | None] = [None] * len(outcomes)
    if prepared.host_engine is not None:
        equal = bit_equal(prepared.bundle, prepared.host_engine, outcomes, stages)
    static = static_quantized(prepared.model.denoiser, prepared.calibration.ranges)
    verdicts = []
    with stages.stage("compare with oracle and FP32") as report:
        for done, outcome in enumerate(outcomes):
            verdicts.append(_verdict(prepared, outcome, static, equal[done]))
            report(done + 1, len(outcomes))
    return verdicts


def _verdict(prepared: Prepared, outcome: Outcome, static: torch.nn.Module, equal: bool | None) -> Verdict:
    job, sampler, denoiser = outcome.job, prepared.sampler, prepared.model.denoiser
    x = _input(prepared, job, sampler)

    def run(way: torch.nn.Module) -> torch.Tensor:
        return sample(way, sampler, x, job.start, seeds=[job.seed], conditions=job.conditions)

    oracle, fp32 = run(prepared.modulated), run(denoiser)
    device = torch.from_numpy(outcome.x.copy())[None]
    fewer = None
    if job.image is None:
        half = _fewer(sampler, prepared.model)
        other = sample(denoiser, half, _input(prepared, job, half), seeds=[job.seed], conditions=job.conditions)
        fewer = float(psnr(other, fp32))
    return Verdict(
        outcome=outcome,
        bit_equal=equal,
        oracle_db=float(psnr(device, oracle)),
        least_db=least_agreement(float(psnr(oracle, fp32))),
        fp32_db=float(psnr(device, fp32)),
        static_int8_db=float(psnr(run(static), fp32)),
        fewer_steps_db=fewer,
        fp32=fp32[0],
    )


def fewer_steps(steps: int) -> int:
    """Half the steps, at least one: what FP32 is compared with."""
    return max(1, steps // 2)


def _fewer(sampler: Sampler, model: PretrainedModel) -> Sampler:
    """The same solver with about half the evaluations; Heun's method takes two a step, but for the last."""
    evaluations = fewer_steps(sampler.steps)
    return build_sampler(
        sampler.name, (evaluations + 1) // 2 if sampler.name == "heun" else evaluations, model.schedule
    )


def require_agreement(verdicts: Sequence[Verdict]) -> None:
    """Refuse a deployment whose device does not compute what the host does.

    Raises:
        EngineError: names the job whose bits are not those that this machine's engine computes.
        DeviceError: names the job that is too far off.
    """
    for verdict in verdicts:
        if verdict.bit_equal is False:
            raise EngineError(
                f"its result is not what this machine's engine computes ({verdict.oracle_db:.1f} dB of the oracle)",
                where=f"job {verdict.outcome.job.title}",
                mend="the program gives the same bits everywhere, so the board computes wrongly: check its memory",
            )
        if verdict.oracle_db < verdict.least_db:
            raise DeviceError(
                f"{verdict.oracle_db:.1f} dB against the host's oracle, {verdict.least_db:.0f} dB are needed",
                where=f"job {verdict.outcome.job.title}",
                mend="the pictures and the report show it; deploy again, and report it if it stays",
            )


def _input(prepared: Prepared, job: Job, sampler: Sampler) -> torch.Tensor:
    """What the job's first step starts from, float32 [1, C, H, W]."""
    seeded = torch.from_numpy(noise(job.seed, prepared.model.sample_shape))[None]
    if job.image is None:
        return start_generation(sampler, seeded)
    return start_inspection(sampler, torch.from_numpy(to_float(job.image))[None], seeded, job.start)
