"""Fused programs of every architecture: as the unfused one in floats, the oracle's integers, nothing left between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch

import edge.operators  # noqa: F401  (defines torch.ops.modiff)
from calib.models import PretrainedModel, load_model
from calib.noise import noise
from calib.plan import Mode
from calib.sampling import start_generation
from edge.calls import Conv2d, Linear
from edge.eager import floats
from edge.lower.exactness import Cost, cost_of
from edge.lower.export import LoweredProgram, export_step, lower_exported
from edge.lower.program import StepProgram, build_program
from tests.lower.architectures import ARCHITECTURES, build
from tests.lower.conftest import Case, make_case, precise_plan

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 5
CALLS = {"modiff.conv2d.default": Conv2d, "modiff.linear.default": Linear}
BORDERS = 2
"""Copies that permute: the sample on its way in, the prediction on its way out."""


@dataclass(frozen=True)
class Exported:
    case: Case
    program: StepProgram
    exported: torch.export.ExportedProgram

    @property
    def module(self) -> torch.fx.GraphModule:
        module: torch.fx.GraphModule = self.exported.module(check_guards=False)
        return module


def export(case: Case, *, fused: bool) -> Exported:
    program = build_program(case.modulated, case.sampler, case.model.sample_shape)
    return Exported(case, program, export_step(program, fused=fused))


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def case(name: str, tiny_model_folder: Path) -> Case:
    denoiser, shape = build(name)
    model = PretrainedModel(denoiser, load_model(tiny_model_folder).schedule, shape, name, "0" * 64)
    return make_case(model, "ddim", STEPS, change=precise_plan)


@pytest.fixture(scope="module")
def fused(case: Case) -> Exported:
    return export(case, fused=True)


@pytest.fixture(scope="module")
def lowered(fused: Exported) -> LoweredProgram:
    return lower_exported(fused.exported, fused.program, fused.case.sampler)


def first_sample(case: Case) -> torch.Tensor:
    return start_generation(case.sampler, torch.from_numpy(noise(5, case.model.sample_shape))[None])


def reset(module: torch.nn.Module) -> None:
    for name, buffer in module.named_buffers():
        if name.rpartition(".")[2] in {"lattice", "accumulator", "history", "counters"}:
            buffer.zero_()


@torch.no_grad()
def test_fusing_changes_no_step_beyond_rounding(case: Case, fused: Exported) -> None:
    ours, theirs = fused.module, export(case, fused=False).module
    for start in (0, STEPS - 2):
        compare(ours, theirs, first_sample(case), start)


def compare(ours: torch.nn.Module, theirs: torch.nn.Module, x: torch.Tensor, start: int) -> None:
    reset(ours)
    reset(theirs)
    for i in range(start, STEPS):
        inputs = (x, torch.tensor([i]), torch.tensor([int(i == start)]))
        expected, got = theirs(*inputs), ours(*inputs)
        moved = (expected - x).square().mean().sqrt()
        assert float((got - expected).square().mean().sqrt()) < 8e-3 * float(moved), f"step {i}"
        x = expected


class LayerCheck(torch.fx.Interpreter):
    """Runs the fused graph; every modulated call is compared with the oracle's layer on the same input."""

    def __init__(self, module: torch.fx.GraphModule, case: Case) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.case = case
        self.checked: set[str] = set()

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:  # noqa: ANN401 - fx's own
        result = super().call_function(target, args, kwargs)
        if str(target) in CALLS:
            self.check(CALLS[str(target)](*args), result)
        return result

    def run_node(self, n: torch.fx.Node) -> object:
        self.layer = next((str(a.target) for a in n.all_input_nodes if str(a.target).endswith(".counters")), "")
        return super().run_node(n)

    def check(self, call: Conv2d | Linear, result: torch.Tensor) -> None:
        name = self.layer.removeprefix("denoiser.").removesuffix(".counters")
        layer = self.case.modulated.layers[name]
        upsample = call.upsample if isinstance(call, Conv2d) else 1
        u = floats.prologue(call.prologue, call.x, call.skip, upsample)
        if isinstance(call, Conv2d):
            u = u.permute(0, 3, 1, 2)
        u = u.squeeze(2) if layer.spatial == 1 else u
        y = layer(torch.nan_to_num(u))
        y = y.unsqueeze(2) if layer.spatial == 1 else y
        y = y.permute(0, 2, 3, 1) if isinstance(call, Conv2d) else y
        skipped = layer.plan.mode is Mode.DIRECT or bool(result.isnan().all())
        assert skipped or torch.equal(floats.epilogue(call, y), result), name
        self.checked.add(name)


@torch.no_grad()
def test_every_layer_gives_the_oracles_bits_for_what_it_reads(case: Case, fused: Exported) -> None:
    module, x = fused.module, first_sample(case)
    reset(module)
    case.modulated.reset()
    for i in range(STEPS):
        case.modulated.set_step(i)
        check = LayerCheck(module, case)
        x = check.run(x, torch.tensor([i]), torch.tensor([int(i == 0)]))
        assert check.checked == set(case.modulated.layers)
        assert bool(x.isfinite().all()), "what nobody should read was read"


def test_nothing_is_left_between_the_operators(name: str, lowered: LoweredProgram) -> None:
    assert not {operator for operator in lowered.operators if cost_of(operator) is Cost.PORTABLE}
    assert lowered.fused
    assert lowered.exact
    if name == "unet":
        assert lowered.calls < 100, "it was 297 before fusion"
    if name in {"unet", "text_unet", "transformer", "row"}:
        assert lowered.counts.get("aten::permute_copy.out", 0) <= BORDERS
