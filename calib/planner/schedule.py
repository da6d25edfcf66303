"""Which region is reused at which step: a search in the projections of ``calib.adjoint``, without runs of the model.

A *schedule* gives every step a level: 0, everything runs; ``l``, the points of the ``l``-th region are reused and what
lies within idles. The effect of a schedule on the image is the sum of what each reused output, instead of the true
one, does to it; signs count, so errors that cancel are seen to. Starting from no reuse, the move that costs the image
least for the work it saves is made until no work is left; on the way lie the good schedules for every budget, which
exchanges of moves improve further.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from calib.plan import PointPlan, Reuse

if TYPE_CHECKING:
    import torch

    from calib.planner.regions import Region

Levels = tuple[int, ...]
Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

INCOHERENT_SHARE = 1.0
"""Weight of the errors' own squares beside that of their sum: a few probes cannot tell every cancellation from luck."""

EXCHANGES = 60
"""Rounds of exchanges at most; a few suffice."""

TOGETHER = 512
"""Schedules that are looked at together: as many as stay in the cache."""

CHEAPEST, NEIGHBOURS = 6, 2
"""What an exchange gives in return: one of the steps that are cheapest to reuse, or one so near."""


@dataclass(frozen=True, order=True)
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


class Move(NamedTuple):
    """A step of a schedule moved to a higher level: what it costs the image for the work it saves, and the result."""

    price: float
    step: int
    schedule: Schedule


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
    _tables: Array = field(init=False, repr=False)
    _owners: Indices = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # A point belongs to the smallest region that has it; points of one region are refreshed at the same steps.
        owner: dict[str, int] = {}
        for index, region in enumerate(self.regions):
            for point in region.points:
                owner.setdefault(point, index)
        some = next(iter(self.projections.values()))
        count = len(self.regions)
        bases = np.zeros((count + 1, some.shape[0] * some.shape[1], *some.shape[2:]))
        for point, index in owner.items():
            bases[index] += self.projections[point].double().numpy().reshape(bases.shape[1:])
        # At a step, of a region, what the output of each step does to the image; the last region is none: all zero.
        self._tables = np.ascontiguousarray(bases.transpose(2, 0, 3, 1))
        owners = [[], *(sorted({owner[point] for point in region.points}) for region in self.regions)]
        most = max(map(len, owners))
        self._owners = np.array([[*some, *[count] * (most - len(some))] for some in owners])

    @property
    def steps(self) -> int:
        """``T``."""
        return len(self._tables)

    def work(self, levels: Levels) -> float:
        """Full steps' worth of work."""
        savings = (0.0, *(region.saving for region in self.regions))
        return sum(1 - savings[level] for level in levels)

    def error(self, levels: Levels) -> float:
        """Predicted mean square error of the image, over probes and seeds."""
        return float(self.errors(np.array([levels]))[0])

    def errors(self, levels: Indices) -> Array:
        """``error`` of many schedules at once.

        Where a smaller region was reused while an output was kept, that output was off already. What this does later
        is taken to be what it did then.

        Args:
            levels: ``[K, T]``.

        Returns:
            float64 ``[K]``.
        """
        parts = [levels[first : first + TOGETHER] for first in range(0, len(levels), TOGETHER)]
        return np.concatenate([self._errors(part) for part in parts]) if parts else np.zeros(0)

    def _errors(self, levels: Indices) -> Array:
        rows, regions = np.arange(len(levels)), np.arange(len(self.regions))
        last = np.zeros((len(levels), len(regions) + 1), dtype=np.int64)
        before = np.full_like(last, -1)  # the steps of each region's two kept outputs; -1 while there is one
        effects = np.zeros((len(levels.T), len(levels), self._tables.shape[-1]))
        for i, level in enumerate(levels.T):
            if level.any():
                for region in self._owners[level].T:
                    effects[i] += self._effect(region, i, last[rows, region], before[rows, region], effects)
            if i:
                fresh = regions >= level[:, None]
                np.copyto(before[:, :-1], last[:, :-1], where=fresh)
                np.copyto(last[:, :-1], i, where=fresh)
        together, alone = np.square(effects.sum(0)).mean(1), np.square(effects).sum(0).mean(1)
        found: Array = (together + INCOHERENT_SHARE * alone) / (1 + INCOHERENT_SHARE)
        return found

    def _effect(self, region: Indices, i: int, last: Indices, before: Indices, effects: Array) -> Array:
        """What reusing a region at step ``i`` does to the image, ``[K, probes * N]``; each schedule has its own one.

        Args:
            region: ``[K]``.
            i: the step.
            last: ``[K]``, the step of its newest kept output.
            before: of the one before.
            effects: ``[T, K, probes * N]`` of the steps before: what an output kept there is off by.
        """
        table, rows = self._tables[i], np.arange(len(region))
        newest = table[region, last] + effects[last, rows]
        effect: Array = newest - table[region, i]
        if self.extrapolates:
            slope = np.where(before >= 0, (i - last) / (last - before), 0.0)
            effect += slope[:, None] * (newest - table[region, before] - effects[before, rows])
        return effect

    @cached_property
    def _path(self) -> list[Schedule]:
        return self.path()

    def best(self, budget: float) -> Schedule | None:
        """The best schedule within a budget of work, in full steps; None where there is none."""
        start = next((each for each in self._path if each.work <= budget), None)
        return None if start is None else self.improve(start, budget)

    def path(self) -> list[Schedule]:
        """Greedy schedules from no reuse to the most, in order of falling work."""
        found = [Schedule((0,) * self.steps, float(self.steps), 0.0)]
        while moves := self._moves([(found[-1], range(1, self.steps))])[0]:
            found.append(min(moves).schedule)
        return found

    def _moves(self, begun: Sequence[tuple[Schedule, Iterable[int]]]) -> list[list[Move]]:
        """For each schedule, the moves of some of its steps to a higher level, all predicted together."""
        levels = range(1, len(self.regions) + 1)
        steps = [[(i, level) for i in some for level in levels if level > each.levels[i]] for each, some in begun]
        changed = [
            (*each.levels[:i], level, *each.levels[i + 1 :])
            for (each, _), moves in zip(begun, steps, strict=True)
            for i, level in moves
        ]
        made = iter(self.make_all(changed))
        found = []
        for (each, _), moves in zip(begun, steps, strict=True):
            results = [(i, next(made)) for i, _ in moves]
            found.append([Move((to.error - each.error) / (each.work - to.work), i, to) for i, to in results])
        return found

    def make(self, levels: Levels) -> Schedule:
        """A schedule of these levels."""
        return Schedule(levels, self.work(levels), self.error(levels))

    def make_all(self, levels: Sequence[Levels]) -> list[Schedule]:
        """A schedule of each of these levels."""
        errors = self.errors(np.array(levels, dtype=np.int64).reshape(len(levels), self.steps))
        return [Schedule(each, self.work(each), float(error)) for each, error in zip(levels, errors, strict=True)]

    def improve(self, schedule: Schedule, budget: float) -> Schedule:
        """Exchange reuse at some steps for reuse at others while the image gains.

        Args:
            schedule: to start from.
            budget: work that the result may take, in full steps.
        """
        for _ in range(EXCHANGES):
            (moves,) = self._moves([(schedule, range(1, self.steps))])
            cheap = {move.step for move in sorted(moves)[:CHEAPEST]}
            undone = [(i, level) for i in range(1, self.steps) for level in range(schedule.levels[i])]
            trials = self.make_all([(*schedule.levels[:i], level, *schedule.levels[i + 1 :]) for i, level in undone])
            near = [cheap.union(range(max(1, i - NEIGHBOURS), min(self.steps, i + NEIGHBOURS + 1))) for i, _ in undone]
            begun = [(trial, sorted(some - {i})) for trial, some, (i, _) in zip(trials, near, undone, strict=True)]
            best = schedule
            while begun:
                fits = [trial for trial, _ in begun if trial.work <= budget + 1e-9]
                best = min([best, *fits], key=lambda each: each.error)
                begun = [each for each in begun if each[0].work > budget + 1e-9 and each[0].error < best.error]
                begun = [
                    (min(moves).schedule, some)
                    for moves, (_, some) in zip(self._moves(begun), begun, strict=True)
                    if moves
                ]
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
