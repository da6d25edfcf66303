"""The step program as an eager module: the sampler's arithmetic, and what cannot become a program."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from calib.modulated import MODULATED, ModulatedLayer
from calib.operators import operator_of
from calib.plan import LayerPlan, Mode, PlanRow
from calib.samplers import History, build_sampler
from calib.sampling import step_noise
from calib.schedules import flow
from calib.weights import LayerWeights, quantize_weight
from edge.errors import LoweringError
from edge.lower.layers import StepHolder
from edge.lower.program import SamplerUpdate, StepProgram, build_program, observe_shapes

if TYPE_CHECKING:
    from tests.lower.conftest import Case


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpmpp2m", "euler", "heun", "flow-euler"])
@pytest.mark.parametrize("start", [0, 3])
def test_update_is_the_samplers_own_to_the_bit(tiny_case: Case, name: str, start: int) -> None:
    sampler = build_sampler(name, 8, flow() if name == "flow-euler" else tiny_case.model.schedule)
    update = SamplerUpdate(sampler, (1, 1, 4, 4))
    generator = torch.Generator().manual_seed(1)
    x = expected = torch.randn(1, 1, 4, 4, generator=generator)
    before = History.empty(x)
    for i in range(start, sampler.steps):
        eps = torch.randn(1, 1, 4, 4, generator=generator)
        fresh = step_noise(sampler, [6], x, i)
        expected, before = sampler.advance(i, expected, eps, before, first=i == start, noise=fresh)
        x = update(x, eps, torch.tensor([i]), torch.tensor([int(i == start)]), fresh)
        assert torch.equal(x, expected)


@pytest.mark.parametrize(
    ("name", "kept"),
    [("ddim", ()), ("ddpm", ()), ("dpmpp2m", ("previous",)), ("euler", ()), ("heun", ("previous", "origin"))],
)
def test_a_solver_keeps_only_what_it_reads(tiny_case: Case, name: str, kept: tuple[str, ...]) -> None:
    update = SamplerUpdate(build_sampler(name, 8, tiny_case.model.schedule), (1, 1, 4, 4))
    assert update.states == kept
    assert {key for key, _ in update.named_buffers()} >= set(kept)


def test_the_samplers_state_is_the_programs(tiny_case: Case, odd_case: Case) -> None:
    tiny = build_program(tiny_case.modulated, tiny_case.sampler, tiny_case.model.sample_shape)
    odd = build_program(odd_case.modulated, odd_case.sampler, odd_case.model.sample_shape)
    assert "update.previous" in tiny.state_buffers()
    assert "update.previous" not in odd.state_buffers()


def test_states_have_the_shapes_of_the_contract(odd_case: Case) -> None:
    program = build_program(odd_case.modulated, odd_case.sampler, odd_case.model.sample_shape)
    states = {name.removeprefix("denoiser."): state for name, state in program.state_buffers().items()}
    shapes = {name: (tuple(state.shape), state.dtype) for name, state in states.items()}
    assert shapes["grouped.lattice"] == ((2, 1, 9, 10, 2), torch.int16)
    assert shapes["grouped.accumulator"] == ((2, 1, 9, 10, 8), torch.int32)
    assert shapes["grouped.history"] == ((1,), torch.float32)
    assert shapes["strided.accumulator"] == ((2, 1, 4, 6, 12), torch.int32)
    assert shapes["strided.history"] == ((1, 4, 6, 12), torch.float32)
    assert shapes["raised.accumulator"] == ((2, 1, 8, 11, 8), torch.int32)
    assert shapes["row.lattice"] == ((1, 1, 1, 88, 8), torch.int16), "the fourth layer has no residual plane"
    assert shapes["row_raised.lattice"] == ((1,), torch.int16), "the fifth layer is direct"
    assert shapes["row_raised.accumulator"] == ((1,), torch.int32)
    assert shapes["mix.lattice"] == ((2, 90, 8), torch.int16)
    assert shapes["mix.counters"] == ((4,), torch.int32)


def test_plan_and_sampler_must_have_the_same_steps(odd_case: Case) -> None:
    other = build_sampler("ddim", 5, odd_case.model.schedule)
    with pytest.raises(LoweringError, match="grouped: the plan has 6 steps, the sampler 5") as refused:
        build_program(odd_case.modulated, other, odd_case.model.sample_shape)
    assert refused.value.exit_code == 6


class Repeats(nn.Module):
    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        del t
        for _ in range(self.times):
            x = self.layer(x)
        return x


def modulated_linear() -> ModulatedLayer:
    linear = nn.Linear(4, 4)
    operator, _ = operator_of(linear)
    main, residual, scale = quantize_weight(operator, torch.eye(4))
    weights = LayerWeights(main, residual, scale, torch.zeros(4), torch.tensor(0.01), 13)
    layer = MODULATED[nn.Linear](operator, weights, LayerPlan(Mode.DELTA, (PlanRow((0,)),), PlanRow((0,))))
    layer.stand_in_for(linear)
    return layer


@pytest.mark.parametrize("times", [0, 2])
def test_a_layer_that_is_not_called_once_is_refused(times: int) -> None:
    with pytest.raises(LoweringError, match=f"layer: the layer is called {times} times"):
        observe_shapes(Repeats(times), {"layer": modulated_linear()}, torch.zeros(1, 1, 4, 4), torch.tensor(0))


def test_a_layer_outside_its_program_says_so(odd_case: Case) -> None:
    program = build_program(odd_case.modulated, odd_case.sampler, odd_case.model.sample_shape)
    layer = program.operator_layers()["denoiser.mix"]
    with pytest.raises(LoweringError, match="outside its program"):
        layer(torch.zeros(1, 8))


def test_clip_bounds_the_data(tiny_case: Case) -> None:
    sampler = dataclasses.replace(build_sampler("ddim", 4, tiny_case.model.schedule), clip=0.25)
    program = StepProgram(Repeats(0), {}, sampler, (1, 4, 4), StepHolder())
    x = torch.full((1, 1, 4, 4), 100.0)
    last = program(x, torch.tensor([3]), torch.tensor([0]))
    expected, left = sampler.advance(3, x, x, History.empty(x), first=False)
    assert torch.equal(last, expected)
    assert float(left.clean.abs().max()) == 0.25
