"""Export of a step program, lowering through ExecuTorch, and what must hold of the result.

    modulated model + sampler -> StepProgram -> exported program -> LoweredProgram (the bytes of a ``.pte``)

Method ``step`` is described in ``edge.lower.program``. Constant methods: ``steps`` (int),
``initial_sigma`` (float32 [1]), ``start_coefficients`` (float32 [T, 2]), ``draws_noise`` (int: 1 where ``step`` takes
noise), ``program_format`` (int); where inspected images are checked, ``novelty_mean`` (float32 [F]) and
``novelty_whitening`` (float32 [F, F]) of ``calib.novelty``.
"""

from __future__ import annotations

import hashlib
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.error import ExportError, InternalError
from executorch.exir.passes import MemoryPlanningPass

from edge.errors import LoweringError
from edge.lower import fold, fuse, inspect, simplify
from edge.lower.exactness import are_exact
from edge.lower.fuse.graph import written_arguments
from edge.lower.points import add_points
from edge.lower.program import build_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor
    from torch.export import ExportedProgram

    from calib.modulated import ModulatedModel
    from calib.novelty import NoveltyTable
    from calib.samplers import Sampler
    from edge.lower.program import StepProgram

METHOD = "step"
FUSED = "fused"
"""Where an exported graph module remembers whether it was fused."""
PROGRAM_FORMAT = 2
"""Changes whenever the methods of a program or their meaning change; the engine checks it."""


@dataclass(frozen=True)
class LoweredProgram:
    """A ``.pte`` and what a board needs to run it.

    Attributes:
        data: the file.
        sha256: of ``data``, hex.
        steps: sampler steps T.
        sample_shape: (C, H, W).
        state_bytes: arena of one job's state (memory id 2).
        activation_bytes: arena that all jobs share (memory id 1).
        operators: names the runtime must have, ``namespace::name.overload``, sorted.
        calls: instructions of one step.
        counts: those by operator, most first.
        fused: whether the graph was fused; False where the model writes into views of its activations.
        exact: whether the program gives the same bits on every machine (``edge.lower.exactness``).
    """

    data: bytes
    sha256: str
    steps: int
    sample_shape: tuple[int, int, int]
    state_bytes: int
    activation_bytes: int
    operators: tuple[str, ...]
    calls: int
    counts: Mapping[str, int] = field(default_factory=dict)
    fused: bool = False
    exact: bool = False

    @property
    def program_bytes(self) -> int:
        """Length of the file."""
        return len(self.data)


def export_step(program: StepProgram, *, fused: bool = True) -> ExportedProgram:
    """Exports ``program``: time embedding as tables, what surrounds the operators fused into them.

    The result's ``module()`` runs on the host with the reference arithmetic.

    Args:
        program: its modules are not changed, but share their states with the result.
        fused: whether to fuse (``edge.lower.fuse``); without, the model's own operators stay, for comparison.

    Raises:
        LoweringError: the denoiser cannot be exported.
    """
    inputs = program.example_inputs()
    program.eval().requires_grad_(requires_grad=False)
    with torch.no_grad(), _as_lowering_error("export"):
        module: Any = torch.export.export(program, inputs).module(check_guards=False)
        simplify.drop_unit_scalings(module)
        fused = fused and fuse.prepare(module)
        fold.fold_step_branch(module, program.steps)
        if fused:
            fuse.fuse(module, program.steps)
            fold.fold_step_branch(module, program.steps)
        fold.plain_attention(module)
        simplify.settle_orders(module)
        exported = torch.export.export(module, inputs)
    exported.graph_module.meta[FUSED] = fused
    return exported


def lower_exported(
    exported: ExportedProgram, program: StepProgram, sampler: Sampler, novelty: NoveltyTable | None = None
) -> LoweredProgram:
    """Lowers what ``export_step(program)`` gave and checks the result.

    Raises:
        LoweringError: the program would not run on the device's runtime, or not with its states in place.
    """
    constants = {
        "steps": program.steps,
        "initial_sigma": torch.tensor([sampler.initial_sigma], dtype=torch.float32),
        "start_coefficients": sampler.start_coefficients.to(torch.float32).contiguous(),
        "draws_noise": int(program.draws_noise),
        "program_format": PROGRAM_FORMAT,
    }
    if novelty is not None:
        constants |= {"novelty_mean": novelty.mean, "novelty_whitening": novelty.whitening}
    with warnings.catch_warnings(), _as_lowering_error("lower"):
        # The engine zeroes the arena at the start of each job: "a meaningless initial state" is as meant.
        warnings.filterwarnings("ignore", message="Mutation on a buffer in the model is detected")
        lowered = to_edge_transform_and_lower(
            {METHOD: exported},
            transform_passes=[simplify.DropCopies()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
            constant_methods=constants,
        ).to_executorch(
            ExecutorchBackendConfig(memory_planning_pass=MemoryPlanningPass(share_mutable_buffers=True)),
        )
        data = bytes(lowered.buffer)
    report = inspect.inspect_method(lowered.executorch_program, METHOD)
    inspect.check_operators(report)
    inspect.check_states(report, _state_bytes(exported))
    return LoweredProgram(
        data,
        hashlib.sha256(data).hexdigest(),
        program.steps,
        program.sample_shape,
        report.state_bytes,
        report.activation_bytes,
        report.operators,
        len(report.calls),
        report.counts,
        bool(exported.graph_module.meta.get(FUSED)),
        are_exact(report.operators) and not _has_factors(exported),
    )


def lower(
    modulated: ModulatedModel,
    sampler: Sampler,
    sample_shape: tuple[int, int, int],
    conditions: Mapping[str, Tensor] | None = None,
    novelty: NoveltyTable | None = None,
) -> LoweredProgram:
    """From a modulated model to the bytes of a ``.pte``.

    Args:
        modulated: calibrated with ``sampler``; it is not changed.
        sampler: its tables become part of the program.
        sample_shape: (C, H, W).
        conditions: examples of what else the denoiser takes, by name, [1, ...] or a batch of them.
        novelty: what inspected images are compared with; None where nothing is to be flagged.

    Raises:
        LoweringError: the model cannot be expressed, or the device's runtime lacks what it needs.
    """
    program = build_program(modulated, sampler, sample_shape, conditions)
    add_points(program, {name: point.plan for name, point in modulated.points.items()})
    return lower_exported(export_step(program), program, sampler, novelty)


def _state_bytes(exported: ExportedProgram) -> dict[str, int]:
    """Bytes of every buffer that the program changes; fusion makes some smaller than their module's."""
    buffers = exported.graph_signature.inputs_to_buffers
    written = {node.name for call in exported.graph.nodes for node in written_arguments(call)}
    states = {buffer: exported.state_dict[buffer] for name, buffer in buffers.items() if name in written}
    return {name: state.numel() * state.element_size() for name, state in states.items()}


def _has_factors(exported: ExportedProgram) -> bool:
    """Whether an addition has a factor for its second operand: two operations, which a compiler may fuse into one."""
    return any(node.kwargs.get("alpha", 1) != 1 for node in exported.graph.nodes)


@contextmanager
def _as_lowering_error(stage: str) -> Iterator[None]:
    """Turns what PyTorch and ExecuTorch raise about a model they cannot express into our error."""
    try:
        yield
    except (RuntimeError, ExportError, InternalError) as error:
        lines = str(error).strip().splitlines()
        raise LoweringError(
            f"ExecuTorch cannot {stage} the model: {lines[0] if lines else type(error).__name__}",
            where="model",
            mend="the denoiser must be free of control flow that depends on data",
        ) from error
