"""On the host: load the model, calibrate it, lower it, build the engine, pack a bundle that fits the board."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from calib.calibration import CalibrationConfig, calibrate, calibration_key
from calib.errors import CalibrationError
from calib.models import PretrainedModel
from calib.modulated import ModulatedModel, modulate
from calib.samplers import Sampler
from calib.storage import load_calibration, save_calibration
from calib.support import check_supported
from edge.bundle import Bundle, Contents, check_fits, pack_bundle, read_bundle, verify_bundle
from edge.cache import content_key, sources_key
from edge.errors import BundleError
from edge.lower.export import lower
from edge.lower.manifest import describe, golden_test
from edge.toolchain import build_engine

if TYPE_CHECKING:
    from boards import Board
    from calib.calibration import Calibration
    from edge.console import Report, Stages
    from edge.deploy.options import DeployOptions

GOLDEN_SEED = 20_250_622
LOWERING_FILES = ("bundle.py", "calls.py", "operators.py", "packing.py", "schema.py", "tolerance.py")


@dataclass(frozen=True)
class Prepared:
    """All that is decided before a board is touched."""

    model: PretrainedModel
    sampler: Sampler
    modulated: ModulatedModel
    calibration: Calibration
    bundle: Bundle


def prepare(model: PretrainedModel, sampler: Sampler, options: DeployOptions, board: Board, stages: Stages) -> Prepared:
    """Make the bundle, or find it in the cache when model, settings, board and sources are the same.

    Raises:
        KitError: of the part that refused: the model, calibration, toolchain, lowering, bundle.
    """
    with stages.stage("calibrate") as report:
        calibration = _calibrated(model, sampler, options.cache, report)
    with stages.stage(f"build the engine for {board.cpu.arch}") as report:
        engine = build_engine(board, options.cache, lambda done, of, _: report(done, of))
    modulated = modulate(model.denoiser, calibration)
    key = content_key(calibration.content_hash, repr(board), engine.folder.name, sources_key(_lowering_sources()))
    folder = options.cache / "bundles" / key
    with stages.stage("lower and pack the bundle"):
        bundle = _cached_bundle(folder)
        if bundle is None:
            program = lower(modulated, sampler, model.sample_shape, model.conditions)
            golden, expected = golden_test(GOLDEN_SEED, model, modulated, sampler)
            contents = Contents(
                describe(program, model, calibration, board, golden),
                program.data,
                [file.path for file in engine.files],
                expected,
            )
            bundle = pack_bundle(folder, contents)
    check_fits(bundle.manifest, board)
    return Prepared(model, sampler, modulated, calibration, bundle)


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


def _lowering_sources() -> list[Path]:
    """The files that decide a bundle beside calibration, board and engine."""
    edge = Path(__file__).parents[1]
    return [*(edge / "lower").rglob("*.py"), *(edge / name for name in LOWERING_FILES)]


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
