"""What this machine's engine makes of the jobs that a board runs: where the program is exact, bit for bit the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.deploy.conditions import to_bytes
from edge.host_engine import HostProgram, host_engine, run_job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.bundle import Bundle
    from edge.console import Stages
    from edge.deploy.stream import Outcome
    from edge.toolchain import EngineBuild


def bit_equal(bundle: Bundle, build: EngineBuild, outcomes: Sequence[Outcome], stages: Stages) -> list[bool]:
    """Whether a device's images, and maps and novelty where there are any, are to the bit what is computed here.

    Args:
        bundle: exact.
        build: the engine of this machine.
        outcomes: of the device.
        stages: shows the steps.

    Raises:
        EngineDied: the engine here fails.
    """
    program = bundle.manifest.file("program")
    here = HostProgram(bundle.folder / program.name, program.sha256, bundle.manifest.memory.state_bytes)
    steps = bundle.manifest.sampler.steps
    total = sum(steps - outcome.job.start for outcome in outcomes)
    equal = []
    done = 0
    with stages.stage("predict every bit (steps)") as report, host_engine(build, here) as engine:

        def count() -> None:
            nonlocal done
            done += 1
            report(done, total)

        for outcome in outcomes:
            job = outcome.job
            result = run_job(engine, job.seed, job.start, job.image, to_bytes(job.conditions), count)
            anomalies = b"" if outcome.anomalies is None else outcome.anomalies.tobytes()
            found = (outcome.x.tobytes(), anomalies, outcome.meta["novelty"])
            equal.append(found == (result.image, result.anomaly, result.novelty))
    return equal
