"""On the host: load the model, calibrate it, lower it, build the engine, pack a bundle that fits the board."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from calib.calibration import CalibrationConfig, calibrate, calibration_key, check_made_for, with_references
from calib.errors import CalibrationError
from calib.models import PretrainedModel
from calib.modulated import ModulatedModel, modulate
from calib.samplers import Sampler
from calib.storage import load_calibration, save_calibration
from calib.support import check_supported
from edge.bundle import Bundle, Contents, check_fits, pack_bundle, read_bundle, verify_bundle
from edge.cache import content_key, sources_key
from edge.deploy.builds import BackgroundBuild
from edge.errors import BundleError
from edge.toolchain import build_engine

if TYPE_CHECKING:
    from boards import Board
    from calib.calibration import Calibration
    from edge.console import Report, Stages
    from edge.deploy.options import DeployOptions
    from edge.toolchain import EngineBuild

GOLDEN_SEED = 20_250_622
LOWERING_FILES = ("calls.py", "host_engine.py", "operators.py", "packing.py", "schema.py", "tolerance.py")


@dataclass(frozen=True)
class Prepared:
    """All that is decided before a board is touched.

    ``host_engine``: this machine's engine, which foretells every bit of the board's results; None where the program is
    not exact.
    """

    model: PretrainedModel
    sampler: Sampler
    modulated: ModulatedModel
    calibration: Calibration
    bundle: Bundle
    host_engine: EngineBuild | None


def prepare(model: PretrainedModel, sampler: Sampler, options: DeployOptions, board: Board, stages: Stages) -> Prepared:
    """Make the bundle, or find it in the cache when model, settings, board and sources are the same.

    Raises:
        KitError: of the part that refused: the model, calibration, toolchain, lowering, bundle.
    """
    with stages.stage("calibrate") as report:
        if options.calibration is None:
            calibration = _calibrated(model, sampler, options.cache, report)
        else:
            calibration = _stored(options.calibration, model, sampler, own_references=options.references is not None)
    with stages.stage(f"build the engine for {board.cpu.arch}") as report:
        engine = build_engine(board, options.cache, lambda done, of, _: report(done, of))
    modulated = modulate(model.denoiser, calibration)
    key = content_key(calibration.content_hash, repr(board), engine.folder.name, sources_key(_lowering_sources()))
    folder = options.cache / "bundles" / key
    # Beside lowering, which uses one core; calibration uses them all.
    with BackgroundBuild(options.cache) as host:
        bundle = _cached_bundle(folder)
        if bundle is None:
            bundle = _make_bundle(_Parts(model, sampler, calibration, modulated, board), engine, host, folder, stages)
        check_fits(bundle.manifest, board)
        exact = bundle.manifest.golden.exact
        return Prepared(model, sampler, modulated, calibration, bundle, _finished(host, stages) if exact else None)


@dataclass(frozen=True)
class _Parts:
    """What a bundle is made from, beside the engine."""

    model: PretrainedModel
    sampler: Sampler
    calibration: Calibration
    modulated: ModulatedModel
    board: Board


def _make_bundle(parts: _Parts, engine: EngineBuild, host: BackgroundBuild, folder: Path, stages: Stages) -> Bundle:
    """Lower, make the golden output and pass the self-test with this machine's engine, pack."""
    # ExecuTorch takes seconds to import: what is refused, or found in the cache, need not wait for it.
    from edge.lower.export import lower  # noqa: PLC0415
    from edge.lower.golden import engine_golden, golden_test  # noqa: PLC0415
    from edge.lower.manifest import describe  # noqa: PLC0415

    model, sampler = parts.model, parts.sampler
    with stages.stage("lower the model"):
        program = lower(parts.modulated, sampler, model.sample_shape, model.conditions, parts.calibration.novelty)
    own = _finished(host, stages)
    with stages.stage("make the golden output, pack"):
        golden, expected = golden_test(GOLDEN_SEED, model, parts.modulated, sampler)
        golden, expected = engine_golden(golden, expected, program, own)
        manifest = describe(program, model, parts.calibration, parts.board, golden)
        return pack_bundle(folder, Contents(manifest, program.data, [file.path for file in engine.files], expected))


def _finished(host: BackgroundBuild, stages: Stages) -> EngineBuild:
    """This machine's engine; a stage is shown only where it has to be waited for."""
    if host.done:
        return host.result(lambda *_: None)
    with stages.stage("build the engine for this machine") as report:
        return host.result(report)


def _calibrated(model: PretrainedModel, sampler: Sampler, cache: Path, report: Report) -> Calibration:
    config = CalibrationConfig()
    folder = cache / "calibrations" / calibration_key(model, sampler, config)[:24]
    if folder.is_dir():
        try:
            return load_calibration(folder)
        except CalibrationError:  # damaged, or cut off while it was written: made anew
            shutil.rmtree(folder)
    check_supported(model)
    calibration = calibrate(model, sampler, config, report)
    save_calibration(calibration, folder)
    return calibration


def _stored(folder: Path, model: PretrainedModel, sampler: Sampler, *, own_references: bool) -> Calibration:
    """What the user calibrated or planned before, for this model and sampler."""
    calibration = load_calibration(folder)
    check_made_for(calibration, model, sampler, where=str(folder))
    if own_references and model.references is not None:
        return with_references(calibration, model.references)
    return calibration


def _lowering_sources() -> list[Path]:
    """The files that decide a bundle beside calibration, board and engine."""
    edge = Path(__file__).parents[1]
    folders = [path for name in ("bundle", "lower") for path in (edge / name).rglob("*.py")]
    return [*folders, edge / "device" / "selftest.py", *(edge / name for name in LOWERING_FILES)]


def _cached_bundle(folder: Path) -> Bundle | None:
    """The bundle in the cache if it is whole; what is damaged is removed and made anew."""
    if not folder.is_dir():
        return None
    try:
        bundle = read_bundle(folder)
        verify_bundle(bundle)
    except BundleError:
        shutil.rmtree(folder)
        return None
    return bundle
