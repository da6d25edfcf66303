"""Our engine with a model: calibrated, lowered, built, and run natively or emulated."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from calib import CalibrationConfig, calibrate
from calib.modulated import modulate
from calib.planner.candidate import planned
from calib.samplers import build_sampler
from edge.cache import cache_folder, content_key, sources_key
from edge.device.engine import StepReport
from edge.device.engine_process import EngineCommand, EngineProcess
from edge.toolchain import EngineBuild, build_engine
from tests.bench.instructions import X86, Recording, counter
from tests.bench.models import LayerShape, layer_shapes, model_named
from tests.bench.planned import thinned
from tests.bench.symbols import operator_mark

ROOT = Path(__file__).resolve().parents[2]
STATE_BUDGET = 4 * 2**30
SEEN_SEED = CalibrationConfig().first_seed
"""Of noise that every calibration looks at."""


@dataclass(frozen=True)
class Prepared:
    """A lowered model.

    Attributes:
        model: its name.
        program: the ``.pte``.
        program_id: its SHA-256.
        steps: sampler steps.
        state_bytes: of one job.
        activation_bytes: shared by all jobs.
        calls: operator calls of one step.
        layers: modulated and other linear operators of one denoiser call.
        varies: whether the plan differs from step to step.
    """

    model: str
    program: Path
    program_id: str
    steps: int
    state_bytes: int
    activation_bytes: int
    calls: int
    layers: tuple[LayerShape, ...]
    varies: bool

    @property
    def macs(self) -> int:
        """Of one denoiser call."""
        return sum(layer.macs for layer in self.layers)


@dataclass(frozen=True)
class Setting:
    """How a model is calibrated for measuring: few seeds, because the values do not matter, and one pass a step.

    Attributes:
        steps: sampler steps.
        residual: whether there is a residual weight plane (one pass at the anchor).
        passes: a step, on average after the anchor, weighted by MACs: below 1, blocks are reused (``planned``).
    """

    steps: int = 4
    residual: bool = False
    passes: float = 1.0


def prepare(model_name: str, setting: Setting | None = None) -> Prepared:
    """Calibrates with the uniform plan and lowers, or takes both from the cache while no source has changed."""
    setting = setting or Setting()
    key = content_key(model_name, json.dumps(asdict(setting)), sources_key(_sources()))
    folder = cache_folder() / "bench" / f"{model_name}-{key}"
    record = folder / "prepared.json"
    if record.is_file():
        document = json.loads(record.read_text(encoding="utf-8"))
        layers = tuple(LayerShape(**layer) for layer in document.pop("layers"))
        return Prepared(**{**document, "program": folder / "program.pte", "layers": layers})
    folder.mkdir(parents=True, exist_ok=True)
    prepared = _lower(model_name, setting, folder / "program.pte")
    record.write_text(json.dumps({**asdict(prepared), "program": ""}), encoding="utf-8")
    return prepared


def _sources() -> list[Path]:
    """What a lowered program depends on; kernels and command lines are not among it."""
    names = ("operators", "calls", "schema", "packing")
    edge = [*(ROOT / "edge" / "lower").rglob("*.py"), *(ROOT / "edge" / f"{name}.py" for name in names)]
    return [
        *(ROOT / "calib").glob("*.py"),
        ROOT / "calib" / "planner" / "regions.py",
        *edge,
        *(Path(__file__).with_name(name) for name in ("models.py", "planned.py")),
    ]


def _lower(model_name: str, setting: Setting, path: Path) -> Prepared:
    from edge.lower.export import lower

    model = model_named(model_name)
    sampler = build_sampler("ddim", setting.steps, model.schedule)
    config = CalibrationConfig(seeds=2, batch=2, exact_share=0.0, residual_every=0 if setting.residual else None)
    calibration = calibrate(model, sampler, config)
    if setting.passes < 1:
        calibration = planned(calibration, thinned(model, calibration.plan, setting.passes))
    lowered = lower(modulate(model.denoiser, calibration), sampler, model.sample_shape)
    path.write_bytes(lowered.data)
    return Prepared(
        model_name,
        path,
        lowered.sha256,
        setting.steps,
        lowered.state_bytes,
        lowered.activation_bytes,
        lowered.calls,
        tuple(layer_shapes(model.denoiser, model.sample_shape)),
        setting.passes < 1,
    )


def command(
    build: EngineBuild, prepared: Prepared, prefix: tuple[str, ...] = (), *, isa: str = "auto", threads: int = 1
) -> EngineCommand:
    """How to start the engine with a prepared model."""
    return EngineCommand(
        build.engine, prepared.program, prepared.program_id, 1, STATE_BUDGET, prefix, isa, threads=threads
    )


def count_steps(
    prepared: Prepared, steps: int = 3, *, cpu: str = "cortex-a76", isa: str = "auto", marked: bool = False
) -> tuple[Recording, list[StepReport]]:
    """Runs the first ``steps`` steps of a job on an emulated core.

    The job starts from noise that calibration saw, so that no pass spills: a step costs what its plan says.

    Args:
        prepared: the model.
        steps: how many.
        cpu: the core, or ``instructions.X86``.
        isa: which of our kernels.
        marked: take stock at each operator call.

    Returns:
        What was executed, and what the engine reports of each step.
    """
    build = build_engine(X86 if cpu == X86 else "aarch64", symbols=True)
    mark = operator_mark(build.folder / "libexecutorch.so") if marked else None
    with counter(cpu, mark) as counted:
        with EngineProcess(command(build, prepared, counted.prefix, isa=isa)) as engine:
            engine.begin(0, SEEN_SEED, 0, None)
            reports = [engine.step(0) for _ in range(steps)]
        return counted.read(), reports
