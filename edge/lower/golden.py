"""The self-test that goes with a bundle: its last steps on an all-zero image, and what must come of them.

The oracle (the reference arithmetic in PyTorch) runs, and this machine's engine: it has to come as near to the oracle
as a device would have to, so that a wrong engine cannot bless itself and no program is sent that cannot run. Where
the program is exact, what it gives is the golden output, of which a device must reproduce every bit.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from calib.evaluate import psnr
from calib.noise import noise
from calib.sampling import sample, start_inspection
from edge.bundle import GOLDEN_STEPS, PROGRAM, Golden
from edge.device import selftest
from edge.device.errors import EngineRefused
from edge.errors import EngineError
from edge.host_engine import HostProgram, host_engine
from edge.tolerance import least_agreement

if TYPE_CHECKING:
    from calib.models import PretrainedModel
    from calib.modulated import ModulatedModel
    from calib.samplers import Sampler
    from edge.lower.export import LoweredProgram
    from edge.toolchain import EngineBuild

OPERATOR_AT_FAULT = re.compile(r"KernelCall failed .* in operator ([\w:.]+)")
"""What ExecuTorch's runtime logs."""


def golden_test(seed: int, model: PretrainedModel, modulated: ModulatedModel, sampler: Sampler) -> tuple[Golden, bytes]:
    """The self-test with the oracle's output: the last ``GOLDEN_STEPS`` steps, all conditions zero.

    Returns:
        The test, not exact, and what the reference makes of it: float32 little endian [C, H, W].
    """
    start = max(0, sampler.steps - GOLDEN_STEPS)
    shape = model.sample_shape
    x = start_inspection(sampler, torch.zeros(1, *shape), torch.from_numpy(noise(seed, shape))[None], start)
    given: dict[str, Any] = {
        "seeds": [seed],
        "conditions": {name: torch.zeros_like(examples[:1]) for name, examples in model.conditions.items()},
    }
    oracle = sample(modulated, sampler, x, start, **given)
    least = least_agreement(float(psnr(oracle, sample(model.denoiser, sampler, x, start, **given))))
    test = Golden(seed, start, "zeros", exact=False, min_psnr_db=round(least, 1))
    return test, oracle.numpy().astype("<f4").tobytes()


def engine_golden(test: Golden, oracle: bytes, program: LoweredProgram, build: EngineBuild) -> tuple[Golden, bytes]:
    """The self-test after this machine's engine has passed it, without tolerance where the program is exact.

    Args:
        test: as ``golden_test`` gives it.
        oracle: its output there, float32 little endian [C, H, W].
        program: to run.
        build: the engine of this machine.

    Returns:
        Of an exact program the exact test, and what this machine's engine makes of it; of others what was given.

    Raises:
        EngineError: this machine's engine cannot run the program, or is farther from the oracle than a device may be.
    """
    output, refused = b"", None
    with tempfile.TemporaryDirectory(prefix="modiff-golden-") as scratch:
        path = Path(scratch) / PROGRAM
        path.write_bytes(program.data)
        with host_engine(build, HostProgram(path, program.sha256, program.state_bytes)) as engine:
            try:
                output = selftest.output(engine, test)
            except EngineRefused as error:
                refused = error
    if refused is not None:
        said = [found[1] for line in engine.log if (found := OPERATOR_AT_FAULT.search(line)) is not None]
        raise EngineError(
            f"this machine's engine cannot run the program: {refused.what}{''.join(f' ({name})' for name in said[:1])}",
            where="self-test",
            mend="an operation of the model is more than its kernel does; write it in another way",
        ) from refused
    near = selftest.psnr(output, oracle)
    if not near >= test.min_psnr_db:
        raise EngineError(
            f"this machine's engine comes to {near:.1f} dB of the oracle in the self-test, "
            f"{test.min_psnr_db:.1f} dB are needed",
            where=str(build.engine),
            mend="the engine computes wrongly: run the tests of tests/engine, and report it",
        )
    return (dataclasses.replace(test, exact=True), output) if program.exact else (test, oracle)
