"""The planner: from a calibration to the Pareto front of plans, each measured by running it.

    sweep (``calib.adjoint``) -> regions -> for every budget: a few schedules (``schedule``), for each the exponents it
    needs, observed on the float model under that schedule, and the passes that the rest of the budget buys
    (``passes``) -> run the modulated model on verification seeds -> keep the best of each budget -> front

Everything is deterministic and looks at calibration seeds only. The uniform plan is among the candidates, so that the
choice is never worse. The sweep and whatever is found are stored as they come, so that a planner that was stopped goes
on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch

from calib.adjoint import Sweep, sweep
from calib.errors import CalibrationError
from calib.evaluate.metrics import pixels_within, psnr
from calib.modulated import modulate
from calib.noise import noise_batch
from calib.plan import Plan, PointPlan
from calib.planner.candidate import Candidate, front, full_steps, passes_of, planned, state_bytes
from calib.planner.config import PlannerConfig
from calib.planner.exponents import exponents_under, least_exponents, never_lags
from calib.planner.passes import LayerPasses, buy_passes, fit_state
from calib.planner.progress import Journal, digest_of
from calib.planner.regions import Region, find_regions
from calib.planner.schedule import Levels, Schedule, ScheduleSearch, live_steps
from calib.samplers import build_sampler
from calib.sampling import Denoiser, sample, start_generation

if TYPE_CHECKING:
    from pathlib import Path

    from boards.model import Cost
    from calib.adapters import PretrainedModel
    from calib.calibration import Calibration
    from calib.samplers import Sampler

VERIFICATION_SEEDS = 700_000
"""Distance of the verification seeds from the calibration's first one."""

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Planning:
    """What planning found.

    Attributes:
        calibration: that the plans belong to.
        front: plans that no other one beats, cheapest first.
        candidates: every plan that was run.
        regions: share of the work that each region saves, smallest first; empty where nothing can be reused.
    """

    calibration: Calibration
    front: tuple[Candidate, ...]
    candidates: tuple[Candidate, ...]
    regions: tuple[float, ...]

    def choose(self, *, psnr: float | None = None, cost: float | None = None) -> Candidate:
        """The plan for a target: the cheapest of at least ``psnr`` dB, else the best of at most ``cost``.

        With both, the cheapest of those that reach ``psnr`` within ``cost``; with neither, the best. Best is what
        leaves the least error on all seeds together, so that one spoilt image counts.

        Raises:
            CalibrationError: no plan of the front does it.
        """
        able = [each for each in self.front if cost is None or each.cost <= cost + 1e-9]
        if psnr is not None:
            able = [each for each in able if each.psnr >= psnr]
        if not able:
            wanted = [] if psnr is None else [f"reaches {psnr} dB"]
            wanted += [] if cost is None else [f"costs at most {cost}"]
            raise CalibrationError(f"no plan {' and '.join(wanted)}", where="planner", mend=self._what_there_is())
        return (
            min(able, key=lambda each: each.cost) if psnr is not None else max(able, key=lambda each: each.psnr_pooled)
        )

    def _what_there_is(self) -> str:
        best, least = max(self.front, key=lambda each: each.psnr), self.front[0]
        there_is = f"the best has {best.psnr:.1f} dB at cost {best.cost:.2f}"
        if least is not best:
            there_is += f", the cheapest {least.psnr:.1f} dB at cost {least.cost:.2f}"
        ways = "plan for more budgets" if self.regions else "this model has no blocks that can be reused"
        return f"{there_is}; {ways}"


def plan(
    model: PretrainedModel,
    sampler: Sampler,
    calibration: Calibration,
    config: PlannerConfig | None = None,
    *,
    board_cost: Cost | None = None,
    journal: Path | None = None,
    progress: Tell | None = None,
) -> Planning:
    """Plan a calibrated model.

    Args:
        model: the float model that was calibrated.
        sampler: it was calibrated for.
        calibration: its integers; its plan is one of the candidates.
        config: settings; the defaults where None.
        board_cost: what a layer costs on the board; multiply-accumulates where None.
        journal: folder to keep what was measured in, so that planning can be resumed.
        progress: called with (what is running, steps done, steps in all).

    Raises:
        CalibrationError: nothing fits the state memory.
    """
    config = config if config is not None else PlannerConfig()
    kept = Journal.open(journal, calibration, sampler, config, board_cost)
    tell: Tell = progress if progress is not None else lambda *_: None
    planner = _Planner(model, sampler, calibration, config, board_cost, kept, tell)
    found = planner.run()
    if not found:
        raise CalibrationError(
            "no plan fits the state memory", where="planner", mend="raise it, or extrapolate nothing (half the points)"
        )
    return Planning(calibration, front(found), tuple(found), tuple(region.saving for region in planner.regions))


@dataclass
class _Planner:
    """The parts that every candidate shares; arguments as of ``plan``."""

    model: PretrainedModel
    sampler: Sampler
    calibration: Calibration
    config: PlannerConfig
    board_cost: Cost | None
    journal: Journal
    tell: Tell
    _: KW_ONLY
    names: list[str] = field(init=False)
    seeds: range = field(init=False)
    sizes: dict[str, tuple[int, int, int]] = field(init=False)
    works: dict[str, float] = field(init=False)
    total: float = field(init=False)
    regions: tuple[Region, ...] = field(init=False)
    seen: Sweep = field(init=False)
    exact: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = list(self.calibration.layers)
        first = self.calibration.config.first_seed + VERIFICATION_SEEDS
        self.seeds = range(first, first + self.config.verification_seeds)
        self.sizes = _sizes(self.model, self.sampler, self.calibration)
        self.works = {name: self._work(name, 1) for name in self.names}
        self.total = sum(self.works.values())
        self.regions = find_regions(self.model, self.works) if self.sampler.steps > 2 else ()
        self.seen = self.journal.remember_sweep(self._sweep)
        exact = self.calibration.config.exact_share * sum(macs for macs, _, _ in self.sizes.values())
        self.exact = frozenset(name for name, (macs, _, _) in self.sizes.items() if macs <= exact)

    def run(self) -> list[Candidate]:
        """Every candidate, measured."""
        found = [self._measure("uniform plan", self.calibration.plan)]
        searches = []
        if self.regions:
            searches = [ScheduleSearch(self.regions, self.seen.projections, self.config.extrapolates)]
            inner = [region for region in self.regions if region.saving < 0.9]
            if inner and len(inner) < len(self.regions):
                searches.append(ScheduleSearch(inner, self.seen.projections, self.config.extrapolates))
        for budget in sorted(self.config.budgets):
            for title, schedule, search in self._schedules(searches, budget * self.sampler.steps):
                made = self._make(f"cost {budget:.2f}, {title}", schedule, search, budget * self.sampler.steps)
                if made is not None:
                    found.append(self._measure(f"cost {budget:.2f}, {title}", made))
        limit = self.config.state_memory
        return [each for each in found if limit is None or each.state_bytes <= limit]

    def _schedules(
        self, searches: list[ScheduleSearch], budget: float
    ) -> list[tuple[str, Schedule, ScheduleSearch | None]]:
        """Different schedules worth a run for a budget, in full steps."""
        steps = self.sampler.steps
        full = Schedule((0,) * steps, float(steps), 0.0)
        found: list[tuple[str, Schedule, ScheduleSearch | None]] = [("no reuse", full, None)] if budget > steps else []
        for number, search in enumerate(searches):
            for reserve in self.config.reserves:
                if budget - reserve >= steps and found:
                    continue
                title = f"regions {number}, reserve {reserve}"
                levels = self._levels(f"cost {budget / steps:.4f}, {title}", search, budget - reserve)
                if levels and all(levels != other.levels for _, other, _ in found):
                    found.append((title, search.make(levels), search))
        return found

    def _levels(self, key: str, search: ScheduleSearch, budget: float) -> Levels:
        """The best schedule within a budget, or what was found before; empty where there is none."""

        def find() -> list[int]:
            best = search.best(budget)
            return [] if best is None else list(best.levels)

        return tuple(self.journal.remember("schedules", key, find))

    def _make(self, title: str, schedule: Schedule, search: ScheduleSearch | None, budget: float) -> Plan | None:
        """The plan of a schedule: exponents as it needs them, passes as the budget allows, state as it fits."""
        points = search.points(schedule.levels) if search is not None else {}
        regions = search.regions if search is not None else ()
        live = {name: live_steps(schedule.levels, regions, name) for name in self.names}
        exponents = self._exponents(title, points, live)
        layers = {
            name: LayerPasses(
                self.seen.layers[name],
                self.calibration.layers[name],
                exponents[name],
                live[name],
                (self._work(name, 2) - self.works[name]) / self.total,
                exact=name in self.exact,
                residual_plane=self.calibration.config.residual_every is not None,
            )
            for name in self.names
        }
        if not points and budget >= self._uniform_work:
            for name, layer in layers.items():
                layer.start_from(self.calibration.plan.layers[name])
        spent = schedule.work + sum(layer.bought for layer in layers.values())
        buy_passes(layers, budget - spent, schedule.error)
        if self.config.state_memory is not None:
            kept = state_bytes(Plan(self.sampler.steps, {}, points), {}, self.seen.point_elements)
            if not fit_state(layers, self.config.state_memory - kept):
                return None
        return Plan(self.sampler.steps, {name: layer.plan() for name, layer in layers.items()}, points)

    @cached_property
    def _uniform_work(self) -> float:
        """Of the calibration's own plan, in full steps."""
        return self._cost(self.calibration.plan) * self.sampler.steps

    def _exponents(
        self, title: str, points: Mapping[str, PointPlan], live: Mapping[str, list[int]]
    ) -> dict[str, tuple[int, ...]]:
        """By layer, the exponent of one pass a step, as ``exponents_under`` finds them, or found before."""
        calibration = self.calibration
        if not points and never_lags(calibration.plan, live):
            return least_exponents(calibration)
        key = digest_of([{name: point.table().tolist() for name, point in points.items()}, dict(live)])

        def look() -> dict[str, tuple[int, ...]]:
            seeds = calibration.config.observed_seeds[: self.config.observed_seeds]
            tell = partial(self.tell, f"observe, {title}")
            return exponents_under(self.model, self.sampler, calibration, points, live, seeds=seeds, progress=tell)

        return {name: tuple(found) for name, found in self.journal.remember("exponents", key, look).items()}

    def _measure(self, title: str, made: Plan) -> Candidate:
        """Run a plan on the verification seeds, or recall its run."""

        def run() -> dict[str, list[float]]:
            images = self._generate(title, modulate(self.model, planned(self.calibration, made)), self.sampler)
            return {
                "psnr": psnr(images, self.reference).tolist(),
                "within_one": pixels_within(images, self.reference, 1).tolist(),
            }

        measured = self.journal.remember("measured", planned(self.calibration, made).content_hash, run)
        sizes = {name: self.sizes[name][0] for name in self.names}
        return Candidate(
            made,
            full_steps(made, sizes),
            self._cost(made),
            state_bytes(made, self.seen.layers, self.seen.point_elements),
            tuple(measured["psnr"]),
            tuple(measured["within_one"]),
        )

    def _cost(self, made: Plan) -> float:
        done = sum(self._work(name, passes) for name in self.names for passes in passes_of(made, name) if passes)
        return done / (self.total * self.sampler.steps)

    def _work(self, name: str, passes: int) -> float:
        """Of one layer at one step: instructions on the board, or multiply-accumulates."""
        macs, inputs, outputs = self.sizes[name]
        return float(passes * macs) if self.board_cost is None else self.board_cost.layer(macs, inputs, outputs, passes)

    def _sweep(self) -> Sweep:
        first = self.calibration.config.first_seed
        return sweep(
            self.model,
            self.sampler,
            range(first, first + self.config.sweep_seeds),
            layers=self.names,
            points=tuple(dict.fromkeys(point for region in self.regions for point in region.points)),
            probes=self.config.probes,
            progress=lambda done, total: self.tell("sensitivities", done, total),
        )

    @cached_property
    def reference(self) -> torch.Tensor:
        """What every candidate is compared with: float32 ``[N, ...]``."""
        steps = self.config.reference_steps
        sampler = self.sampler if steps is None else build_sampler(self.sampler.name, steps, self.model.schedule)
        return self._generate("reference", self.model.denoiser, sampler)

    def _generate(self, title: str, denoiser: Denoiser, sampler: Sampler) -> torch.Tensor:
        return sample(
            denoiser,
            sampler,
            start_generation(sampler, noise_batch(self.seeds, self.model.sample_shape)),
            on_step=lambda i, _: self.tell(title, i + 1, sampler.steps),
            seeds=self.seeds,
            conditions=self.model.example_conditions(len(self.seeds)),
        )


def _sizes(model: PretrainedModel, sampler: Sampler, calibration: Calibration) -> dict[str, tuple[int, int, int]]:
    """Multiply-accumulates, input and output elements of each layer for one sample."""
    first = build_sampler(sampler.name, 1, model.schedule)
    seen = sweep(model, first, [calibration.config.first_seed], layers=list(calibration.layers), probes=1)
    return {name: (layer.macs, layer.inputs, layer.outputs) for name, layer in seen.layers.items()}
