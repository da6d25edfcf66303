"""Exported and lowered programs: the oracle's integers, states in place, sizes as predicted, nothing missing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from calib.noise import noise
from calib.sampling import sample, start_generation
from edge.errors import LoweringError
from edge.lower.export import LoweredProgram, export_step, lower, lower_exported
from edge.lower.inspect import ALIGNMENT
from edge.lower.layers import StepHolder
from edge.lower.program import StepProgram, build_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from calib.samplers import Sampler
    from tests.lower.conftest import Case


@dataclass(frozen=True)
class Lowered:
    case: Case
    program: StepProgram
    exported: torch.export.ExportedProgram
    result: LoweredProgram


def lower_case(case: Case) -> Lowered:
    program = build_program(case.modulated, case.sampler, case.model.sample_shape)
    exported = export_step(program)
    return Lowered(case, program, exported, lower_exported(exported, program, case.sampler))


@pytest.fixture(scope="module")
def tiny(tiny_case: Case) -> Lowered:
    return lower_case(tiny_case)


@pytest.fixture(scope="module")
def odd(odd_case: Case) -> Lowered:
    return lower_case(odd_case)


@torch.no_grad()
def run(step: nn.Module, x: torch.Tensor, start: int, steps: int) -> torch.Tensor:
    for i in range(start, steps):
        x = step(x, torch.tensor([i]), torch.tensor([int(i == start)]))
    return x


def first_sample(case: Case) -> torch.Tensor:
    shape = case.model.sample_shape
    return start_generation(case.sampler, torch.from_numpy(noise(5, shape))[None])


@pytest.mark.parametrize("start", [0, 2])
def test_program_equals_the_modulated_model_to_the_bit(odd: Lowered, tiny: Lowered, start: int) -> None:
    for lowered in (odd, tiny):
        case, x = lowered.case, first_sample(lowered.case)
        expected = sample(case.modulated, case.sampler, x, start)
        lowered.program.reset()
        assert torch.equal(run(lowered.program, x, start, case.sampler.steps), expected)
        for name, layer in case.modulated.layers.items():
            buffers = lowered.program.operator_layers()[f"denoiser.{name}"]
            state = layer.state
            if state is None:
                assert not buffers.lattice.any()
                continue
            for ours, theirs in zip(buffers.accumulator, state.accumulator, strict=True):
                channels_last = theirs.flatten(0, -2) if ours.dim() == 2 else theirs.permute(0, 2, 3, 1)
                assert torch.equal(ours, channels_last), name


def test_odd_layers_leave_the_same_image_to_the_bit(odd: Lowered) -> None:
    x = first_sample(odd.case)
    module = odd.exported.module(check_guards=False)
    for name, buffer in module.named_buffers():
        if name in odd.program.state_buffers():
            buffer.zero_()
    expected = sample(odd.case.modulated, odd.case.sampler, x, 1)
    assert torch.equal(run(module, x, 1, odd.case.sampler.steps), expected)


def test_time_embedding_is_a_table(tiny: Lowered) -> None:
    called = {str(node.target) for node in tiny.exported.graph.nodes if node.op == "call_function"}
    assert not called & {"aten.sin.default", "aten.cos.default", "aten.linear.default"}
    assert not [name for name, _ in tiny.exported.named_parameters() if "time" in name]


def test_memory_is_as_predicted(tiny: Lowered, odd: Lowered) -> None:
    for lowered in (tiny, odd):
        states = lowered.program.state_bytes().values()
        planned = sum(-(-size // ALIGNMENT) * ALIGNMENT for size in states)
        upsampled = lowered is tiny  # its lattice is kept before upsampling
        assert (lowered.result.state_bytes < planned) is upsampled
        assert lowered.result.state_bytes <= planned
        assert 0 < lowered.result.activation_bytes < 1 << 20
        weights = sum(layer.packed_weight.numel() for layer in lowered.program.operator_layers().values())
        assert lowered.result.program_bytes > weights


def test_program_is_named_by_its_bytes_and_lowering_repeats(odd: Lowered) -> None:
    result = odd.result
    assert result.data[4:8] == b"ET12", "ExecuTorch's file identifier"
    assert result.sha256 == hashlib.sha256(result.data).hexdigest()
    assert {"modiff::conv2d.out", "modiff::linear.out"} <= set(result.operators)
    assert sum(result.counts.values()) == result.calls
    assert not result.exact, "a convolution with circular padding stays ExecuTorch's"
    again = lower(odd.case.modulated, odd.case.sampler, odd.case.model.sample_shape)
    assert again == result


class Wrapped(nn.Module):
    """A denoiser that does ``function`` to the sample."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        del t
        result: torch.Tensor = self.function(x)
        return result


def lower_function(function: Callable[[torch.Tensor], torch.Tensor], sampler: Sampler) -> LoweredProgram:
    program = StepProgram(Wrapped(function), {}, sampler, (1, 4, 4), StepHolder())
    return lower_exported(export_step(program), program, sampler)


def test_an_operator_that_the_runtime_lacks_is_named(odd_case: Case) -> None:
    with pytest.raises(LoweringError, match=r"no kernel for aten::erfinv\.out") as refused:
        lower_function(torch.erfinv, odd_case.sampler)
    assert refused.value.exit_code == 6


def test_control_flow_on_data_is_refused(odd_case: Case) -> None:
    with pytest.raises(LoweringError, match="cannot export the model"):
        lower_function(lambda x: x if x.sum() > 0 else -x, odd_case.sampler)
