"""Which region is reused at which step: a search in the projections of ``calib.adjoint``, without runs of the model.

A *schedule* gives every step a level: 0, everything runs; ``l``, the points of the ``l``-th region are reused and what
lies within idles. The effect of a schedule on the image is the sum of what each reused output, instead of the true
one, does to it; signs count, so errors that cancel are seen to. Starting from no reuse, the move that costs the image
least for the work it saves is made until no work is left; on the way lie the good schedules for every budget, which
exchanges of moves improve further.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calib.plan import PointPlan, Reuse

if TYPE_CHECKING:
    import torch

    from calib.planner.regions import Region

Levels = tuple[int, ...]
Vector = npt.NDArray[np.float64]

INCOHERENT_SHARE = 1.0
"""Weight of the errors' own squares beside that of their sum: a few probes cannot tell every cancellation from luck."""

EXCHANGES = 12
"""Rounds of exchanges at most; a few suffice."""

CHEAPEST, NEIGHBOURS = 6, 2
"""What an exchange gives in return: one of the steps that are cheapest to reuse, or one so near."""


@dataclass(frozen=True)
class Schedule:
    """A schedule and what it is predicted to do.

    Attributes:
        levels: one a step, 0 at step 0.
        work: multiply-accumulates of one pass a live layer, in units of full steps.
        error: predicted mean square error of the image.
    """

    levels: Levels
    work: float
    error: float


@dataclass(frozen=True)
class _Kept:
    """A region's two kept outputs: their steps (before is -1 while there is one), and what they were off by."""

    last: int
    before: int
    deviation: Vector
    deviation_before: Vector


@dataclass
class ScheduleSearch:
    """Predicts and improves schedules.

    Attributes:
        regions: nested, smallest first.
        projections: ``Sweep.projections`` of their points.
        extrapolates: whether reused outputs are extrapolated or held.
    """

    regions: Sequence[Region]
    projections: Mapping[str, torch.Tensor]
    extrapolates: bool = True
    _bases: list[npt.NDArray[np.float64]] = field(init=False, repr=False)
    _owners: list[list[int]] = field(init=False, repr=False)
    _effects: dict[tuple[int, int, int, int], Vector] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        # A point belongs to the smallest region that has it; points of one region are refreshed at the same steps.
        owner: dict[str, int] = {}
        for index, region in enumerate(self.regions):
            for point in region.points:
                owner.setdefault(point, index)
        some = next(iter(self.projections.values()))
        self._bases = [np.zeros(some.shape) for _ in self.regions]
        for point, index in owner.items():
            self._bases[index] += self.projections[point].double().numpy()
        self._nothing = np.zeros(some.shape[0] * some.shape[1])
        self._owners = [sorted({owner[point] for point in region.points}) for region in self.regions]

    @property
    def steps(self) -> int:
        """``T``."""
        return int(self._bases[0].shape[-1])

    def work(self, levels: Levels) -> float:
        """Full steps' worth of work."""
        savings = (0.0, *(region.saving for region in self.regions))
        return sum(1 - savings[level] for level in levels)

    def error(self, levels: Levels) -> float:
        """Predicted mean square error of the image, over probes and seeds."""
        kept = [_Kept(0, -1, self._nothing, self._nothing) for _ in self.regions]
        effects = []
        for i, level in enumerate(levels):
            effect = self._nothing
            for index in self._owners[level - 1] if level else ():
                effect = effect + self._effect(index, i, kept[index])
            if level:
                effects.append(effect)
            if i:
                for index in range(level, len(self.regions)):
                    kept[index] = _Kept(i, kept[index].last, effect, kept[index].deviation)
        if not effects:
            return 0.0
        stacked = np.stack(effects)
        together, alone = np.square(stacked.sum(0)).mean(), np.square(stacked).sum(0).mean()
        return float(together + INCOHERENT_SHARE * alone) / (1 + INCOHERENT_SHARE)

    def _effect(self, region: int, i: int, kept: _Kept) -> Vector:
        """What reusing a region at step ``i`` does to the image, ``[probes * N]``.

        Where a smaller region was reused while an output was kept, that output was off already. What this does at step
        ``i`` is taken to be what it did then.
        """
        last, before = kept.last, kept.before
        slope = (i - last) / (last - before) if self.extrapolates and before >= 0 else 0.0
        key = (region, i, last, before)
        if key not in self._effects:
            row = self._bases[region][..., i, :]
            self._effects[key] = (row[..., last] - row[..., i] + slope * (row[..., last] - row[..., before])).reshape(
                -1
            )
        effect = self._effects[key] + kept.deviation
        return effect + slope * (kept.deviation - kept.deviation_before) if slope else effect

    @cached_property
    def _path(self) -> list[Schedule]:
        return self.path()

    def best(self, budget: float) -> Schedule | None:
        """The best schedule within a budget of work, in full steps; None where there is none."""
        start = next((each for each in self._path if each.work <= budget), None)
        return None if start is None else self.improve(start, budget)

    def path(self) -> list[Schedule]:
        """Greedy schedules from no reuse to the most, in order of falling work."""
        current = Schedule((0,) * self.steps, float(self.steps), 0.0)
        found = [current]
        while True:
            best = self._best_move(current, range(1, self.steps))
            if best is None:
                return found
            current = best
            found.append(current)

    def _moves(self, current: Schedule, steps: Iterable[int]) -> Iterator[tuple[float, int, Schedule]]:
        """Moves of single steps to a higher level: (what it costs the image for the work it saves, step, result)."""
        for i in steps:
            for level in range(current.levels[i] + 1, len(self.regions) + 1):
                moved = self.make((*current.levels[:i], level, *current.levels[i + 1 :]))
                yield (moved.error - current.error) / (current.work - moved.work), i, moved

    def _best_move(self, current: Schedule, steps: Iterable[int]) -> Schedule | None:
        """The cheapest move."""
        best = min(self._moves(current, steps), key=lambda move: move[0], default=None)
        return None if best is None else best[2]

    def make(self, levels: Levels) -> Schedule:
        """A schedule of these levels."""
        return Schedule(levels, self.work(levels), self.error(levels))

    def improve(self, schedule: Schedule, budget: float) -> Schedule:
        """Exchange reuse at some steps for reuse at others while the image gains.

        Args:
            schedule: to start from.
            budget: work that the result may take, in full steps.
        """
        for _ in range(EXCHANGES):
            best = schedule
            moves = sorted(self._moves(schedule, range(1, self.steps)), key=lambda move: move[0])
            cheap = {step for _, step, _ in moves[:CHEAPEST]}
            for i in range(1, self.steps):
                near = range(max(1, i - NEIGHBOURS), min(self.steps, i + NEIGHBOURS + 1))
                others = sorted((cheap | set(near)) - {i})
                for level in range(schedule.levels[i]):
                    trial = self.make((*schedule.levels[:i], level, *schedule.levels[i + 1 :]))
                    while trial.work > budget + 1e-9:
                        moved = self._best_move(trial, others)
                        if moved is None or moved.error >= best.error:
                            break
                        trial = moved
                    if trial.work <= budget + 1e-9 and trial.error < best.error:
                        best = trial
            if best is schedule:
                return schedule
            schedule = best
        return schedule

    def points(self, levels: Levels) -> dict[str, PointPlan]:
        """The plan's reuse points; those that no step reuses are left out."""
        reused = Reuse.EXTRAPOLATE if self.extrapolates else Reuse.HOLD
        found: dict[str, PointPlan] = {}
        for index, region in enumerate(self.regions, start=1):
            for point in region.points:
                if point not in found and index in levels:
                    rows = tuple(reused if level >= index else Reuse.REFRESH for level in levels)
                    found[point] = PointPlan(rows)
        return found


def live_steps(levels: Levels, regions: Sequence[Region], layer: str) -> list[int]:
    """The steps at which a layer runs."""
    idle = [False, *(layer in region.idle for region in regions)]
    return [i for i, level in enumerate(levels) if not idle[level]]
