"""``python -m edge.lower --model DIR``: what a step of the lowered model calls, before and after fusion."""

from __future__ import annotations

import argparse
import sys

from boards.errors import KitError
from calib.calibration import CalibrationConfig, calibrate
from calib.modulated import modulate
from calib.samplers import build_sampler
from calib.sources import read_model
from edge.lower.exactness import cost_of
from edge.lower.export import LoweredProgram, export_step, lower_exported
from edge.lower.program import build_program

STEPS = 4
"""Of the sampler: the operators are the same for any number."""


def lower_both(source: str | None) -> tuple[LoweredProgram, LoweredProgram]:
    """A model's program without and with fusion; None is the demo model.

    Raises:
        KitError: of the part that refused.
    """
    model = read_model(source)
    sampler = build_sampler("ddim", STEPS, model.schedule)
    modulated = modulate(model.denoiser, calibrate(model, sampler, CalibrationConfig(seeds=2, batch=2)))
    programs = []
    for fused in (False, True):
        program = build_program(modulated, sampler, model.sample_shape, model.conditions)
        programs.append(lower_exported(export_step(program, fused=fused), program, sampler))
    return programs[0], programs[1]


def table(before: LoweredProgram, after: LoweredProgram) -> str:
    """Calls a step by operator, before and after."""
    names = sorted({*before.counts, *after.counts}, key=lambda name: (-after.counts.get(name, 0), name))
    lines = [f"{'operator':44} {'kind':12} {'before':>6} {'after':>6}"]
    for name in names:
        calls = [program.counts.get(name, 0) for program in (before, after)]
        lines.append(f"{name:44} {cost_of(name):12} {calls[0]:6} {calls[1]:6}")
    lines.append(f"{'calls a step':57} {before.calls:6} {after.calls:6}")
    lines.append(f"{'activations, KiB':57} {before.activation_bytes >> 10:6} {after.activation_bytes >> 10:6}")
    lines.append(f"{'state, KiB':57} {before.state_bytes >> 10:6} {after.state_bytes >> 10:6}")
    lines.append(f"the same bits on every machine: {'yes' if after.exact else 'no'}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m edge.lower", description=__doc__)
    parser.add_argument("--model", help="diffusers folder, or FILE.py:FUNCTION; the demo model without")
    options = parser.parse_args(arguments)
    try:
        print(table(*lower_both(options.model)))
    except KitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
