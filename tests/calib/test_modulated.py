"""Modulated layers against the float layers they replace."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from calib.calibration import Calibration, CalibrationConfig, calibrate
from calib.errors import CalibrationError, PlanError
from calib.lattice import Operator
from calib.models import PretrainedModel, load_model
from calib.modulated import MODULATED, ModulatedLayer, ModulatedLinear, modulate
from calib.noise import noise_batch
from calib.operators import bias_of, operator_of, weight_of, why_not
from calib.plan import LayerPlan, Mode, Plan, PlanRow
from calib.samplers import Sampler, build_sampler
from calib.sampling import sample
from calib.weights import LayerWeights, lattice_bits, quantize_weight

if TYPE_CHECKING:
    from pathlib import Path

EXACT = PlanRow((5, 0), (5, 0))

LAYERS = [
    nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2),
    nn.Conv1d(3, 5, 5, padding="same", bias=False),
    nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
    nn.Conv2d(4, 6, 3, padding="same"),
    nn.Conv2d(4, 6, 3, padding="valid"),
    nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
    nn.ConvTranspose2d(4, 6, (3, 4), stride=(2, 3), padding=(1, 0), output_padding=(1, 2), groups=2, dilation=(1, 2)),
    nn.ConvTranspose2d(4, 6, 2, bias=False),
    nn.Linear(4, 6),
    nn.Linear(4, 6, bias=False),
]


def input_for(layer: nn.Module, seed: int) -> torch.Tensor:
    channels = getattr(layer, "in_channels", 4)
    shape = {3: (2, channels, 9), 4: (2, channels, 7, 6), 2: (2, 3, 4)}[layer.weight.dim()]
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def modulated_from(layer: nn.Module, plan: LayerPlan) -> ModulatedLayer:
    operator, _ = operator_of(layer)
    main, residual, scale = quantize_weight(operator, weight_of(layer))
    bits = lattice_bits(operator, main, residual, wanted=13)
    step = torch.tensor(6.0 / (2 ** (bits - 1) - 1))
    return MODULATED[type(layer)](operator, LayerWeights(main, residual, scale, bias_of(layer), step, bits), plan)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("mode", Mode)
def test_every_layer_follows_its_float_original(layer: nn.Module, mode: Mode) -> None:
    modulated = modulated_from(layer, LayerPlan(mode, (EXACT,) * 3, EXACT))
    with torch.no_grad():
        for i in range(3):
            modulated.step = i
            x = input_for(layer, i)
            expected = layer(x)
            torch.testing.assert_close(modulated(x), expected, atol=8e-3, rtol=0)
    assert (modulated.state is None) == (mode is Mode.DIRECT)
    assert modulated.counts.passes == 6


def test_direct_layers_forget_and_delta_layers_remember() -> None:
    layer = nn.Linear(4, 6)
    rows = (PlanRow((5,)),) * 3
    x = input_for(layer, 0)
    for mode, same in ((Mode.DIRECT, True), (Mode.DELTA, False)):
        start = PlanRow((5,) if mode is Mode.DIRECT else (5, 0))
        modulated = modulated_from(layer, LayerPlan(mode, rows, start))
        first = modulated(x)
        modulated.step = 1
        assert torch.equal(modulated(x), first)
        modulated.step = 2
        far = modulated(x + 0.05)
        fresh = modulated_from(layer, LayerPlan(mode, rows, PlanRow((5,))))
        fresh.step = 2
        assert torch.equal(far, fresh(x + 0.05)) is same


def test_a_direct_layer_that_is_read_does_its_anchor() -> None:
    layer = nn.Linear(4, 6)
    modulated = modulated_from(layer, LayerPlan(Mode.DIRECT, (PlanRow((5, 0)), PlanRow(())), PlanRow((5, 0))))
    x = input_for(layer, 0)
    first = modulated(x)
    modulated.step = 1
    assert torch.equal(modulated(x), first)
    with pytest.raises(PlanError, match="not its anchor"):
        LayerPlan(Mode.DIRECT, (PlanRow((4,)),), PlanRow((5, 0)))


def test_the_first_step_of_a_job_is_the_anchor_wherever_it_starts() -> None:
    layer = nn.Linear(4, 6)
    modulated = modulated_from(layer, LayerPlan(Mode.DELTA, (PlanRow(()),) * 5, PlanRow((5, 0), (5,))))
    x = input_for(layer, 0)
    modulated.step = 3
    first = modulated(x)
    torch.testing.assert_close(first, layer(x).detach(), atol=8e-3, rtol=0)
    modulated.step = 4
    assert torch.equal(modulated(10 * x), first)
    assert torch.equal(modulated.output(), first)
    modulated.reset()
    assert modulated.counts.passes == 0
    with pytest.raises(CalibrationError):
        modulated.output()


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), "padding mode"),
        (nn.Conv2d(2, 2, 2, padding="same"), "uneven"),
        (nn.Conv3d(2, 2, 2), "Conv3d"),
        (nn.LayerNorm(3), "LayerNorm"),
    ],
)
def test_other_layers_are_named_and_refused(layer: nn.Module, reason: str) -> None:
    assert reason in str(why_not(layer))
    with pytest.raises(CalibrationError, match=reason):
        operator_of(layer)


def test_the_geometry_of_one_dimensional_layers_is_two_dimensional() -> None:
    operator, shape = operator_of(LAYERS[0])
    assert operator == Operator(operator.kind, (1, 2), (0, 1), (1, 2), 2, (0, 0))
    assert shape == (6, 2, 1, 3)


@pytest.fixture(scope="module")
def tiny(tiny_model_folder: Path) -> tuple[PretrainedModel, Sampler, Calibration]:
    model = load_model(tiny_model_folder)
    sampler = build_sampler("ddim", 6, model.schedule)
    return model, sampler, calibrate(model, sampler, CalibrationConfig(seeds=2, residual_every=2))


def test_a_modulated_model_keeps_every_accumulator_exact_and_the_float_model_untouched(
    tiny: tuple[PretrainedModel, Sampler, Calibration],
) -> None:
    model, sampler, calibration = tiny
    before = {name: value.clone() for name, value in model.denoiser.state_dict().items()}
    modulated = modulate(model.denoiser, calibration)
    x = noise_batch(range(2), model.sample_shape)
    images = sample(modulated, sampler, x)
    for layer in modulated.layers.values():
        assert layer.state is not None
        for plane, lattice, accumulator in zip(
            layer.arithmetic.planes, layer.state.lattice, layer.state.accumulator, strict=True
        ):
            assert torch.equal(accumulator.double(), layer.operator(lattice.double(), plane.weight.double()))
    counts = modulated.counts()
    layers = len(modulated.layers)
    assert counts.passes == sum(
        2 + sum(len(row.exponents) for row in layer.plan.rows[1:]) for layer in modulated.layers.values()
    )
    assert counts.residual_passes == layers * 3
    assert sum(isinstance(module, ModulatedLinear) for module in modulated.modules()) == 16
    assert all(torch.equal(value, before[name]) for name, value in model.denoiser.state_dict().items())
    assert torch.equal(images, sample(modulated, sampler, x))


def test_batches_are_jobs_in_lockstep(tiny: tuple[PretrainedModel, Sampler, Calibration]) -> None:
    """Between the layers float kernels may round differently for another batch size, hence the tolerance."""
    model, sampler, calibration = tiny
    modulated = modulate(model.denoiser, calibration)
    x, t = noise_batch(range(3), model.sample_shape), sampler.timesteps[0]
    with torch.no_grad():
        together = modulated(x, t)
        for entry in range(3):
            modulated.reset()
            alone = modulated(x[entry : entry + 1], t)
            torch.testing.assert_close(together[entry : entry + 1], alone, atol=2e-2, rtol=0)


def test_a_calibration_of_another_model_is_refused(tiny: tuple[PretrainedModel, Sampler, Calibration]) -> None:
    model, _, calibration = tiny
    name = next(iter(calibration.layers))
    with pytest.raises(CalibrationError, match="no such layer"):
        modulate(nn.Sequential(nn.Linear(2, 2)), calibration)
    wrong = dataclasses.replace(calibration.layers[name], main=torch.zeros(3, 3, dtype=torch.int8))
    with pytest.raises(CalibrationError, match="weights are"):
        modulate(model.denoiser, dataclasses.replace(calibration, layers={**calibration.layers, name: wrong}))
    missing = dataclasses.replace(calibration, plan=Plan(6, {}), layers={})
    assert modulate(model.denoiser, missing).layers == {}
