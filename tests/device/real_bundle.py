"""A bundle with the real engine: a tiny UNet, calibrated, lowered and packed for this machine, and its oracle."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge.bundle import (
    FORMAT,
    Bundle,
    Contents,
    Golden,
    Manifest,
    MemoryNeeds,
    ModelFacts,
    RuntimeVersions,
    SamplerFacts,
    pack_bundle,
)

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from calib.modulated import ModulatedModel
    from calib.novelty import NoveltyTable
    from calib.samplers import Sampler
    from edge.lower.export import LoweredProgram
    from edge.toolchain import EngineBuild

STEPS = 6
LEAST_DB = 60.0
SHAPE = (1, 16, 16)


@dataclass(frozen=True)
class Made:
    """A bundle for the host, and the oracle that it must agree with."""

    bundle: Bundle
    modulated: ModulatedModel
    sampler: Sampler
    program: LoweredProgram
    engine: EngineBuild
    novelty: NoveltyTable

    @property
    def layers(self) -> int:
        """How many layers are modulated."""
        return len(self.modulated.layers)

    def generate(self, seed: int) -> bytes:
        import torch

        from calib import sampling
        from calib.noise import noise

        x = sampling.start_generation(self.sampler, torch.from_numpy(noise(seed, (1, *SHAPE))))
        return sampling.sample(self.modulated, self.sampler, x).numpy().tobytes()

    def inspect(self, image: npt.NDArray[np.float32], seed: int, start: int) -> bytes:
        import torch

        from calib import sampling
        from calib.noise import noise

        x = torch.from_numpy(noise(seed, (1, *SHAPE)))
        x = sampling.start_inspection(self.sampler, torch.from_numpy(image[None]), x, start)
        return sampling.sample(self.modulated, self.sampler, x, start).numpy().tobytes()


def calm_down(denoiser: torch.nn.Module) -> None:
    """Make random weights predict little noise.

    As drawn, they make the sampler chaotic: 15 dB between the oracle and FP32, and between any two machines.
    """
    import torch

    with torch.no_grad():
        for parameter in denoiser.get_submodule("unet.conv_out").parameters():
            parameter.mul_(0.002)


def reference_images(seed: int = 0, count: int = 40) -> torch.Tensor:
    """Soft blobs, dark on light: float32 [count, 1, 16, 16]."""
    import torch

    rng = np.random.default_rng(seed)
    places = rng.uniform(4, 12, (2, count, 1, 1))
    rows, columns = np.mgrid[:16, :16]
    blobs = np.exp(-((rows - places[0]) ** 2 + (columns - places[1]) ** 2) / 8)
    images = 0.6 - blobs + rng.normal(0, 0.05, (count, 16, 16))
    return torch.from_numpy(images.clip(-1, 1).astype(np.float32))[:, None]


def make(model_folder: Path, folder: Path) -> Made:
    """Calibrate, lower and pack; takes some seconds, and a minute where the engine has to be built."""
    from calib.calibration import CalibrationConfig, calibrate
    from calib.models import load_model
    from calib.modulated import modulate
    from calib.novelty import novelty_table
    from calib.samplers import build_sampler
    from edge.lower.export import lower
    from edge.lower.golden import engine_golden
    from edge.toolchain import build_engine

    model = load_model(model_folder)
    calm_down(model.denoiser)
    sampler = build_sampler("ddim", STEPS, model.schedule)
    calibration = calibrate(model, sampler, CalibrationConfig(seeds=2, batch=2, residual_every=3))
    modulated = modulate(model.denoiser, calibration)
    novelty = novelty_table(reference_images())
    assert novelty is not None
    program = lower(modulated, sampler, model.sample_shape, novelty=novelty)
    engine = build_engine("host")
    start = STEPS - 3
    manifest = Manifest(
        format=FORMAT,
        name="tiny",
        board="host",
        kit="0.1.0",
        runtime=RuntimeVersions("1.5.1", 1),
        model=ModelFacts("tiny", *SHAPE, model.content_hash),
        sampler=SamplerFacts("ddim", STEPS),
        plan={},
        memory=MemoryNeeds.estimate(
            state_bytes=program.state_bytes,
            activation_bytes=program.activation_bytes,
            program_bytes=program.program_bytes,
            slots=2,
        ),
        slots=2,
        files=(),
        golden=Golden(seed=5, start=start, image="zeros", exact=False, min_psnr_db=LEAST_DB),
    )
    unfinished = Made(Bundle(folder, manifest, ""), modulated, sampler, program, engine, novelty)
    test, golden = manifest.golden, unfinished.inspect(np.zeros(SHAPE, np.float32), 5, start)
    assert program.exact
    test, golden = engine_golden(test, golden, program, engine)
    contents = Contents(
        dataclasses.replace(manifest, golden=test), program.data, [file.path for file in engine.files], golden
    )
    bundle = pack_bundle(folder / "tiny", contents)
    return dataclasses.replace(unfinished, bundle=bundle)


def twin(made: Made, folder: Path) -> Path:
    """The same bundle under another name: another manifest, so another id, and nothing else."""
    shutil.copytree(made.bundle.folder, folder)
    manifest = dataclasses.replace(made.bundle.manifest, name="twin")
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return folder
