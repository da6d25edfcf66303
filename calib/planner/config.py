"""What a planner looks at and how long it looks."""

from __future__ import annotations

from dataclasses import dataclass

from calib.errors import CalibrationError


@dataclass(frozen=True)
class PlannerConfig:
    """What the planner looks at.

    Attributes:
        budgets: costs to plan for, as shares of one pass of every layer at every step.
        sweep_seeds: seeds of the adjoint sweep. Many seeds with few probes: images differ more than directions do.
        probes: its random directions a seed.
        observed_seeds: seeds on which exponents are observed under a schedule.
        verification_seeds: seeds that every candidate is run on.
        reserves: what a schedule leaves of a budget for second and residual passes, in full steps; each is tried.
        state_memory: bytes that layers and points of one job may keep; None = any.
        extrapolates: reused outputs are extrapolated; holding them takes half the memory.
        reference_steps: quality is measured against the float model with so many steps of the same sampler; None =
            with the plan's own steps.
    """

    budgets: tuple[float, ...] = (0.35, 0.5, 0.65, 0.85, 1.15)
    sweep_seeds: int = 12
    probes: int = 2
    observed_seeds: int = 4
    verification_seeds: int = 4
    reserves: tuple[float, ...] = (1.5,)
    state_memory: int | None = None
    extrapolates: bool = True
    reference_steps: int | None = None

    def __post_init__(self) -> None:
        def check(holds: bool, key: str, mend: str) -> None:
            if not holds:
                raise CalibrationError(f"{key} = {getattr(self, key)!r}", where="PlannerConfig", mend=mend)

        check(bool(self.budgets) and min(self.budgets) > 0, "budgets", "give at least one cost above 0")
        check(self.sweep_seeds >= 1, "sweep_seeds", "use at least 1")
        check(self.probes >= 1, "probes", "use at least 1")
        check(self.observed_seeds >= 2, "observed_seeds", "use at least 2")
        check(self.verification_seeds >= 1, "verification_seeds", "use at least 1")
        check(bool(self.reserves) and min(self.reserves) >= 0, "reserves", "give at least one, 0 or more")
        check(self.state_memory is None or self.state_memory > 0, "state_memory", "use None or bytes above 0")
        check(self.reference_steps is None or self.reference_steps > 0, "reference_steps", "use None or 1 and more")
