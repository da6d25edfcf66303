"""Rounding of weights: two planes that together hold sixteen bits."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from calib.errors import CalibrationError
from calib.lattice import Kind, Operator
from calib.weights import LayerWeights, lattice_bits, quantize_weight


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), scale=st.sampled_from([1e-20, 1e-3, 1.0, 1e6]), transposed=st.booleans())
def test_the_planes_hold_the_weight_to_half_a_residual_step(seed: int, scale: float, transposed: bool) -> None:
    groups = 2
    operator = Operator(Kind.TRANSPOSED if transposed else Kind.CONV, groups=groups)
    weight = scale * torch.randn(6, 3, 2, 3, generator=torch.Generator().manual_seed(seed))
    main, residual, channel = quantize_weight(operator, weight)
    assert main.shape == residual.shape == weight.shape
    assert main.dtype == residual.dtype == torch.int8
    assert len(channel) == 6
    assert int(main.abs().max()) == 127
    assert int(residual.abs().max()) <= 127
    exact = operator.per_channel(weight).double() / channel.double()[:, None]
    planes = operator.per_channel(main).double() + operator.per_channel(residual).double() / 254
    assert float((exact - planes).abs().max()) <= 0.5 / 254 + 1e-9
    assert (operator.per_channel(main).abs().amax(1) == 127).all()


def test_channels_of_a_grouped_transposed_operator_are_what_one_output_sums() -> None:
    operator = Operator(Kind.TRANSPOSED, groups=2)
    weight = torch.randn(4, 3, 1, 2)
    rows = operator.per_channel(weight)
    torch.testing.assert_close(rows[4], weight[2:, 1].reshape(-1))
    assert torch.equal(operator.from_per_channel(rows, weight.shape), weight)


def test_a_zero_channel_keeps_a_usable_scale() -> None:
    weight = torch.tensor([[0.0, 0.0], [1e-44, 0.0], [1.0, -2.0]])
    main, residual, channel = quantize_weight(Operator(Kind.LINEAR), weight)
    assert channel[:2].tolist() == [1.0, 1.0]
    assert not main[:2].any()
    assert not residual[:2].any()


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(CalibrationError):
        quantize_weight(Operator(Kind.LINEAR), torch.tensor([[float("inf"), 0.0]]))


@pytest.mark.parametrize("wanted", [7, 17])
def test_lattice_bits_out_of_range_are_refused(wanted: int) -> None:
    with pytest.raises(CalibrationError):
        lattice_bits(Operator(Kind.LINEAR), torch.ones(1, 1, dtype=torch.int8), wanted=wanted)


def test_a_layer_that_int32_cannot_hold_is_refused() -> None:
    with pytest.raises(CalibrationError, match="overflow"):
        lattice_bits(Operator(Kind.LINEAR), torch.full((1, 140_000), 127, dtype=torch.int8), wanted=13)


def test_output_scales_round_once_an_operation() -> None:
    main = torch.ones(2, 1, dtype=torch.int8)
    channel, step = torch.tensor([0.1, 0.3]), torch.tensor(0.7)
    layer = LayerWeights(main, main, channel, torch.zeros(2), step, 13)
    scales = layer.output_scales()
    assert scales.dtype == torch.float32
    assert torch.equal(scales[0], (channel.double() * step.double()).float())
    assert torch.equal(scales[1], (scales[0].double() / 254).float())
    assert torch.equal(layer.inverse_step, (1 / step.double()).float())
