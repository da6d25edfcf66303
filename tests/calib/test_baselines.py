"""Ordinary quantization, simulated."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from calib.baselines import DirectLayer, dynamic_quantized, fake_quantize, static_quantized


@pytest.mark.parametrize("layer", [nn.Conv1d(3, 4, 3), nn.Conv2d(3, 4, 3, bias=False), nn.Linear(8, 4)])
def test_a_static_layer_rounds_inputs_and_weights(layer: nn.Module) -> None:
    shape = {3: (2, 3, 8), 4: (2, 3, 8, 8), 2: (2, 8)}[layer.weight.dim()]
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 3 - 1
    quantized = DirectLayer(layer, 8, (-1.0, 2.0))
    with torch.no_grad():
        error = (quantized(x) - layer(x)).abs().max()
        assert 0 < error < 0.05
        assert (DirectLayer(layer, 4, (-1.0, 2.0))(x) - layer(x)).abs().max() > 3 * error
        # Values outside the range are cut to it.
        assert torch.equal(quantized(x * 0 + 50), quantized(x * 0 + 2))
        assert torch.equal(quantized(x * 0 - 50), quantized(x * 0 - 1))


def test_a_dynamic_layer_takes_each_entry_for_itself() -> None:
    layer = nn.Linear(64, 16)
    x = torch.rand(2, 64, generator=torch.Generator().manual_seed(0))
    x[1] *= 1000
    with torch.no_grad():
        both, alone = DirectLayer(layer, 8)(x), DirectLayer(layer, 8)(x[:1])
        torch.testing.assert_close(both[:1], alone)
        # Over one range for both, the first entry would round to 0 and give the bias.
        assert (both[0] - layer.bias).abs().max() > 0.05


@pytest.mark.parametrize("bits", [8, 6, 4, 3])
def test_codes_have_as_many_values_as_their_bits_and_zero_is_one(bits: int) -> None:
    x = torch.linspace(-1.3, 2.9, 10_000)
    made = fake_quantize(x, x.min(), x.max(), 2**bits - 1)
    assert len(made.unique()) <= 2**bits
    assert len(made.unique()) >= 2**bits - 1
    assert fake_quantize(torch.zeros(1), torch.tensor(-1.3), torch.tensor(2.9), 2**bits - 1) == 0
    assert (made - x).abs().max() <= 1.01 * 4.2 / (2**bits - 1)
    # A range that does not hold zero is widened to.
    assert fake_quantize(torch.tensor([5.0]), torch.tensor(4.0), torch.tensor(5.0), 255) == 5


def test_only_the_named_layers_are_replaced() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    static = static_quantized(model, {"1": (-1.0, 1.0), "2": (0.0, 1.0)}, 4, wide=["2"])
    dynamic = dynamic_quantized(model, ["1"], 4)
    for quantized in (static, dynamic):
        assert isinstance(quantized[0], nn.Linear)
        assert isinstance(quantized[1], DirectLayer)
        assert quantized[1].levels == 15
    assert static[2].levels == 255
    assert isinstance(model[1], nn.Linear)
