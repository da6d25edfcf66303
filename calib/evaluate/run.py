"""Running an evaluation: every way over the same seeds, each image kept, then every number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from calib.calibration import Calibration, CalibrationConfig, assemble, check_made_for
from calib.errors import CalibrationError
from calib.evaluate.evidence import Evidence, gather
from calib.evaluate.features import LEAST_IMAGES, NETWORK, FeatureNetwork, distances
from calib.evaluate.images import Images, ImageStore, image_key
from calib.evaluate.intervals import bootstrap
from calib.evaluate.metrics import pixels_within, psnr, ssim
from calib.evaluate.real import demo_images, folder_images
from calib.evaluate.result import Evaluation, FeatureDistances, Row
from calib.evaluate.suite import WEIGHT_METHODS, Entry, EvaluationConfig, reference_solver, rivals, suite
from calib.evaluate.ways import (
    Bench,
    Dynamic,
    Float,
    Modulated,
    Planned,
    Runnable,
    Static,
    Way,
    solver_steps,
    solver_steps_of,
)
from calib.noise import noise_batch
from calib.samplers import Sampler
from calib.sampling import sample, start_generation

if TYPE_CHECKING:
    from calib.adapters import PretrainedModel

Tell = Callable[[str, int, int], None]
"""``(what is running, steps done, steps in all)``."""


def evaluate(
    model: PretrainedModel,
    sampler: Sampler,
    config: EvaluationConfig | None = None,
    *,
    calibration: Calibration | CalibrationConfig | None = None,
    plans: Sequence[tuple[str, Calibration]] = (),
    keep: Path | None = None,
    command: str = "",
    progress: Tell | None = None,
) -> tuple[Evaluation, dict[str, torch.Tensor]]:
    """Generate the same seeds in every way and compare with the float model, the reference and real images.

    Args:
        model: the pretrained model.
        sampler: of every way that has none of its own.
        config: what to evaluate.
        calibration: one with the uniform plan, or the settings to make it with.
        plans: title and calibration of each planned way; each brings its own sampler.
        keep: folder that keeps every way's images, so that a stopped evaluation goes on where it was.
        command: that the caller ran, for the record.
        progress: called after each sampler step.

    Returns:
        The numbers, and the images by name: float32 ``[seeds, C, H, W]``, ``real`` among them where there are any.

    Raises:
        CalibrationError: seeds that a calibration has seen, or a calibration of something else.
    """
    config = config if config is not None else EvaluationConfig()
    tell = progress if progress is not None else lambda *_: None
    settings = calibration.config if isinstance(calibration, Calibration) else calibration or CalibrationConfig()
    check_disjoint(config, [("the calibration", settings), *((title, plan.config) for title, plan in plans)])
    if isinstance(calibration, Calibration):
        check_made_for(calibration, model, sampler, where="the calibration")
    for title, plan in plans:
        check_made_for(plan, model, where=title)
    methods = tuple(WEIGHT_METHODS.values()) if config.weight_methods else ()
    evidence = gather(model, sampler, settings, methods, tell)
    base = calibration if isinstance(calibration, Calibration) else _assemble(model, sampler, settings, evidence)
    bench = Bench(model, sampler, base, evidence, {plan.content_hash: plan for _, plan in plans})
    maker = _Maker(bench, config, ImageStore(keep), tell)
    entries = suite(config, sampler, plans)
    made = {entry: maker.make(entry.name, entry.way) for entry in entries}
    costly = [one.cost.full_steps for entry, one in made.items() if _has_rivals(entry.way)]
    made |= {entry: maker.make(entry.name, entry.way) for entry in rivals(costly, model.schedule)}
    solver = reference_solver(model.schedule)
    reference = maker.make("the reference", Float(solver, config.reference_steps))
    judge = _Judge(maker, reference.images, _real_images(model, config))
    rows = tuple(judge.row(entry, one) for entry, one in made.items())
    result = Evaluation(
        model.name,
        model.content_hash,
        sampler.name,
        sampler.steps,
        f"{solver}, {reference.steps} steps",
        tuple(config.evaluated_seeds),
        tuple(settings.observed_seeds),
        NETWORK if judge.network is not None else None,
        0 if judge.real is None else len(judge.real),
        command,
        rows,
    )
    images = {entry.name: one.images for entry, one in made.items()}
    return result, images if judge.real is None else {**images, "real": judge.real}


def check_disjoint(config: EvaluationConfig, seen: Sequence[tuple[str, CalibrationConfig]]) -> None:
    """Refuse to evaluate on seeds that anything was chosen on: calibration, analysis and planning count up from one.

    Raises:
        CalibrationError: an evaluation seed is not below a calibration's first one.
    """
    for title, settings in seen:
        last = config.evaluated_seeds[-1]
        if last >= settings.first_seed:
            raise CalibrationError(
                f"evaluation seed {last} is not below {settings.first_seed}, the first seed of {title}",
                where="seeds",
                mend="calibration and planning count up from there: numbers from their own seeds prove nothing",
            )


def _assemble(model: PretrainedModel, sampler: Sampler, settings: CalibrationConfig, evidence: Evidence) -> Calibration:
    moments = evidence.moments if settings.weights.looks_at_inputs else {}
    return assemble(
        model, sampler, settings, evidence.observations, float_layers=evidence.float_layers, moments=moments
    )


def _has_rivals(way: Way) -> bool:
    """Whether fewer float steps at this way's cost are worth showing: the ways that a device would run."""
    return isinstance(way, Planned) or (isinstance(way, Modulated) and way == Modulated(residual=True))


def _real_images(model: PretrainedModel, config: EvaluationConfig) -> torch.Tensor | None:
    if not config.distances:
        return None
    if config.real is not None:
        return folder_images(config.real, config.real_images, model.sample_shape)
    return demo_images(config.real_images, model.sample_shape) if model.name == "demo" else None


class _Maker:
    """Makes images, or finds them where an earlier run left them."""

    def __init__(self, bench: Bench, config: EvaluationConfig, store: ImageStore, tell: Tell) -> None:
        self.bench = bench
        self.config = config
        self.store = store
        self.tell = tell

    def make(self, name: str, way: Way) -> Images:
        """Images of all seeds in one way: a few seeds at a time, so that the activations stay in the cache."""
        seeds, batch, bench = self.config.evaluated_seeds, self.config.batch, self.bench
        lots = [seeds[first : first + batch] for first in range(0, len(seeds), batch)]
        runnable: Runnable | None = None
        parts = []
        for k, lot in enumerate(lots):
            key = image_key(bench.model.content_hash, bench.calibration.content_hash, bench.sampler, way, lot)
            found = self.store.get(key)
            if found is None:
                runnable = runnable if runnable is not None else bench.make(way)
                found = self._generate(runnable, lot, _shifted(self.tell, name, k, len(lots)))
                self.store.put(key, found)
            parts.append(found)
        return Images.joined(parts)

    def _generate(self, runnable: Runnable, seeds: range, tell: Callable[[int, int], None]) -> Images:
        model, sampler = self.bench.model, runnable.sampler
        start = start_generation(sampler, noise_batch(seeds, model.sample_shape))
        images = sample(
            runnable.denoiser,
            sampler,
            start,
            on_step=lambda i, _: tell(i + 1, sampler.steps),
            seeds=seeds,
            conditions=model.example_conditions(len(seeds), seeds.start),
        )
        counts = runnable.counts()
        return Images(images, sampler.name, sampler.steps, runnable.cost, counts.saturated, counts.elements)


def _shifted(tell: Tell, name: str, before: int, lots: int) -> Callable[[int, int], None]:
    """Progress of one lot as progress of all."""
    return lambda done, of: tell(name, before * of + done, lots * of)


class _Judge:
    """Turns images into rows."""

    def __init__(self, maker: _Maker, reference: torch.Tensor, real: torch.Tensor | None) -> None:
        self.maker = maker
        self.reference = reference
        self.real = real
        config, shape = maker.config, maker.bench.model.sample_shape
        wanted = config.distances and config.seeds >= LEAST_IMAGES and shape[0] in {1, 3}
        self.network = FeatureNetwork() if wanted else None
        self._features: dict[int, torch.Tensor] = {}

    def row(self, entry: Entry, made: Images) -> Row:
        """All numbers of one way."""
        target = self._float_images(entry, made)
        decibels = psnr(made.images, target)
        return Row(
            entry.name,
            entry.group,
            made.sampler,
            made.steps,
            code_bits(entry.way),
            made.cost.passes,
            made.cost.residual_passes,
            made.cost.full_steps,
            bootstrap(decibels),
            float(decibels.median()),
            float(decibels.min()),
            bootstrap(psnr(made.images, self.reference)),
            bootstrap(ssim(made.images, target)),
            bootstrap(pixels_within(made.images, target, 0)),
            bootstrap(pixels_within(made.images, target, 1)),
            made.saturation,
            self._distances(made.images, target),
            tuple(decibels.tolist()),
        )

    def _float_images(self, entry: Entry, made: Images) -> torch.Tensor:
        """What the float model makes with the same sampler and steps; with fewer steps: what all of them make."""
        bench = self.maker.bench
        if isinstance(entry.way, Planned):
            calibration = bench.plans[entry.way.content_hash]
            way = Float(calibration.sampler, solver_steps(calibration))
            return self.maker.make(f"FP32, {made.sampler}, {made.steps} steps", way).images
        return self.maker.make("FP32", Float(bench.sampler.name, solver_steps_of(bench.sampler))).images

    def _distances(self, images: torch.Tensor, target: torch.Tensor) -> FeatureDistances:
        if self.network is None:
            return FeatureDistances()
        made, wanted = self._seen(images), self._seen(target)
        near = distances(made, wanted, paired=True)
        if self.real is None:
            return FeatureDistances(near.frechet, near.kernel)
        far = distances(made, self._seen(self.real), paired=False)
        return FeatureDistances(near.frechet, near.kernel, far.frechet, far.kernel)

    def _seen(self, images: torch.Tensor) -> torch.Tensor:
        """Features, each set of images through the network once."""
        assert self.network is not None
        key = images.data_ptr()
        if key not in self._features:
            self._features[key] = self.network(images)
        return self._features[key]


def code_bits(way: Way) -> int | None:
    """Bits of the codes that a way's layer inputs or changes have."""
    match way:
        case Static(bits) | Dynamic(bits) | Modulated(bits):
            return bits
        case Planned():
            return 8
        case Float():
            return None
