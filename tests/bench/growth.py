"""How a step, and a program, grow with image size, width and sampler steps: instructions, state, activations, file.

By default of networks without attention: its scores grow with the fourth power of a side, so at 256 pixels it would be
all that is counted, for an hour.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.counted import count_ours
from tests.bench.instructions import MAC_CLASSES
from tests.bench.ours import Setting, prepare

SIZES = ("plain-32px-32", "plain-64px-32", "plain-128px-32", "plain-256px-32")
WIDTHS = ("plain-32px-32", "plain-32px-64", "plain-32px-128", "plain-32px-256")
STEPS = (4, 16, 64)
"""Of the sampler, for the first model alone. What depends on steps only is a table with a row a step in the program."""


@dataclass(frozen=True)
class Point:
    """One model.

    Attributes:
        model: its name.
        steps: of the sampler.
        macs: of one denoiser call's linear operators.
        instructions: of one modulated step.
        mac_share: share of them that multiply-accumulate.
        state_bytes: of one job.
        activation_bytes: of the engine.
        program_bytes: of the ``.pte``.
    """

    model: str
    steps: int
    macs: int
    instructions: int
    mac_share: float
    state_bytes: int
    activation_bytes: int
    program_bytes: int

    @property
    def per_mac(self) -> float:
        """Instructions per MAC."""
        return self.instructions / self.macs


def measure(model: str, cpu: str, steps: int = STEPS[0]) -> Point:
    """Lower a model and count its modulated steps: the mean over a job."""
    prepared = prepare(model, Setting(steps=steps))
    counts = count_ours(prepared, cpu)
    share = sum(counts.get(name, 0) for name in MAC_CLASSES) / counts.total
    return Point(
        model,
        steps,
        prepared.macs,
        counts.total,
        share,
        prepared.state_bytes,
        prepared.activation_bytes,
        prepared.program.stat().st_size,
    )
