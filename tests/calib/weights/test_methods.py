"""MSE ranges, GPTQ and bias correction do what they are for; the moments they look at are the layer's."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from calib.calibration import CalibrationConfig, calibrate
from calib.errors import CalibrationError
from calib.lattice import Kind, Operator
from calib.models import load_model
from calib.operators import operator_of, weight_of
from calib.samplers import build_sampler
from calib.weights import (
    CorrectBias,
    Gptq,
    MseRange,
    WeightMethod,
    corrected_bias,
    quantize_weight,
)
from calib.weights.moments import InputMoments, columns

if TYPE_CHECKING:
    from pathlib import Path

LINEAR = Operator(Kind.LINEAR)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def correlated_inputs(count: int, size: int) -> torch.Tensor:
    """``[count, size]``: neighbours move together, and the mean is not zero, as in a network."""
    return random(count, size, seed=1).cumsum(1) / size**0.5 + 0.7


def moments_of(x: torch.Tensor) -> InputMoments:
    seen = columns(LINEAR, x, (1, 1))
    groups, height, _ = seen.shape
    moments = InputMoments(
        torch.zeros(groups, height, dtype=torch.float64), torch.zeros(groups, height, height, dtype=torch.float64)
    )
    for part in seen.split(97, dim=2):
        moments.see(part)
    return moments


def output_error(weight: torch.Tensor, x: torch.Tensor, method: WeightMethod) -> float:
    moments = moments_of(x)
    main, _, scale = quantize_weight(LINEAR, weight, method, moments)
    bias = corrected_bias(
        LINEAR, weight, bias=torch.zeros(len(weight)), main=main, scale=scale, method=method, moments=moments
    )
    wanted = x.double() @ weight.double().T
    made = x.double() @ (main.double() * scale.double()[:, None]).T + bias.double()
    return float((wanted - made).square().mean())


def test_moments_are_those_of_all_columns_at_once() -> None:
    x = correlated_inputs(500, 6)
    moments = moments_of(x)
    torch.testing.assert_close(moments.mean[0], x.double().mean(0), rtol=1e-5, atol=1e-6)
    assert moments.second is not None
    torch.testing.assert_close(moments.second[0], x.double().T @ x.double() / 500, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moments.covariance()[0], torch.cov(x.double().T, correction=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2),
        nn.ConvTranspose2d(4, 6, (3, 2), stride=(2, 1), padding=1, output_padding=(1, 0), groups=2),
        nn.ConvTranspose2d(3, 5, 2, dilation=2),
        nn.Linear(4, 3),
    ],
)
def test_columns_times_rows_are_the_operator(layer: nn.Module) -> None:
    operator, shape = operator_of(layer)
    x = random(2, 5, 4) if isinstance(layer, nn.Linear) else random(2, int(layer.in_channels), 5, 4)
    kernel = (1, 1) if isinstance(layer, nn.Linear) else (int(shape[2]), int(shape[3]))
    rows = operator.per_channel(weight_of(layer))
    seen = columns(operator, x, kernel)
    made = rows.reshape(operator.groups, -1, rows.shape[1]) @ seen
    wanted = operator(x, weight_of(layer))
    wanted = wanted.reshape(-1, len(rows)).T if isinstance(layer, nn.Linear) else wanted.transpose(0, 1).flatten(1)
    torch.testing.assert_close(made.reshape(len(rows), -1), wanted, rtol=1e-4, atol=1e-5)


def test_each_method_lowers_the_error_it_is_for() -> None:
    x, weight = correlated_inputs(2000, 48), random(8, 48, seed=2)
    nearest = output_error(weight, x, WeightMethod())
    assert output_error(weight, x, WeightMethod(bias=CorrectBias())) < 0.9 * nearest
    assert output_error(weight, x, WeightMethod(rounding=Gptq())) < 0.3 * nearest
    both = output_error(weight, x, WeightMethod(rounding=Gptq(), bias=CorrectBias()))
    assert both < 0.3 * nearest


def test_the_mse_range_cuts_one_large_weight_for_the_sake_of_many() -> None:
    weight = torch.rand(2, 20_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    weight[0, 0] = 1.2
    errors = []
    for method in (WeightMethod(), WeightMethod(MseRange(0.8))):
        main, _, scale = quantize_weight(LINEAR, weight, method)
        errors.append((main.double() * scale.double()[:, None] - weight).square().sum(1))
    assert (errors[1] <= errors[0]).all()
    assert errors[1][0] < 0.95 * errors[0][0]


def test_gptq_keeps_to_the_codes_and_to_rounding_where_inputs_are_unrelated() -> None:
    weight = random(5, 300)
    unrelated = InputMoments(torch.zeros(1, 300).double(), torch.eye(300).double()[None])
    nearest, _, _ = quantize_weight(LINEAR, weight)
    main, _, _ = quantize_weight(LINEAR, weight, WeightMethod(rounding=Gptq()), unrelated)
    assert torch.equal(main, nearest)
    still = InputMoments(torch.zeros(1, 300).double(), torch.zeros(1, 300, 300).double())
    main, _, _ = quantize_weight(LINEAR, weight, WeightMethod(rounding=Gptq()), still)
    assert torch.equal(main, nearest)


def test_methods_that_look_at_inputs_refuse_to_work_without() -> None:
    weight = random(2, 3)
    with pytest.raises(CalibrationError, match="moments"):
        quantize_weight(LINEAR, weight, WeightMethod(rounding=Gptq()))
    main, _, scale = quantize_weight(LINEAR, weight)
    with pytest.raises(CalibrationError, match="moments"):
        corrected_bias(
            LINEAR, weight, bias=torch.zeros(2), main=main, scale=scale, method=WeightMethod(bias=CorrectBias())
        )
    for wrong in (lambda: Gptq(damping=0), lambda: CorrectBias(seeds=0), lambda: MseRange(smallest=0)):
        with pytest.raises(CalibrationError):
            wrong()


def test_a_calibration_uses_its_weight_method(tiny_model_folder: Path) -> None:
    model = load_model(tiny_model_folder)
    sampler = build_sampler("ddim", 3, model.schedule)
    config = CalibrationConfig(seeds=2, batch=2)
    method = WeightMethod(MseRange(), Gptq(seeds=2, every=1), CorrectBias(seeds=1, every=2))
    plain = calibrate(model, sampler, config)
    made = calibrate(model, sampler, dataclasses.replace(config, weights=method))
    name = "unet.mid_block.attentions.0.to_q"
    assert (made.layers[name].channel_scale <= plain.layers[name].channel_scale).all()
    assert not torch.equal(made.layers[name].main, plain.layers[name].main)
    assert not torch.equal(made.layers[name].bias, plain.layers[name].bias)
    assert made.content_hash != plain.content_hash
    assert (method.input_seeds, method.input_every) == (2, 1)
