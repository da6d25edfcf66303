"""Any module as a denoiser: shapes, times, conditions, guidance, packed attention; the module stays as it is."""

# ruff: noqa: ARG005 - a denoiser is called with a time, whether it looks at it or not

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from calib import adapt, build_sampler, calibrate, guided, modulate, sample, start_generation, vp
from calib.adapters import plain_module
from calib.attention import SeparateAttention, expand_attention
from calib.calibration import CalibrationConfig
from calib.errors import CalibrationError, ModelError
from calib.noise import noise_batch
from calib.schedules import NoiseSchedule, edm


class Shift(nn.Module):
    """``(x, t, by, label)``: adds a condition and a label's row to a mixed ``x``."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)
        self.table = nn.Embedding(5, width)
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor, t: torch.Tensor, *, by: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        self.seen = [x, t]
        return self.mix(x) + by[:, None, None] + self.table(label)[:, None] * t[:, None, None]


def conditions() -> dict[str, torch.Tensor]:
    return {"by": torch.tensor([0.5, 1.5], dtype=torch.float64), "label": torch.tensor([1, 3], dtype=torch.int32)}


def test_a_module_is_called_in_its_own_shape_with_one_time_a_sample() -> None:
    module = Shift()
    model = adapt(module, sample_shape=(4, 6), time=vp(), conditions=conditions())
    assert model.sample_shape == (4, 1, 6)
    x, by, label = torch.randn(3, 4, 1, 6), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 1, 2])
    out = model.denoiser(x, torch.tensor(0.5), by, label)
    expected = module(x[:, :, 0], torch.full((3,), 0.5), by=by, label=label)
    assert torch.equal(out, expected[:, :, None])
    given, times = model.denoiser.net.seen
    assert (given.shape, times.shape) == ((3, 4, 6), (3,))


@pytest.mark.parametrize(
    ("shape", "image"), [((5,), (1, 1, 5)), ((3, 7), (3, 1, 7)), ((2, 3, 4), (2, 3, 4)), ((2, 3, 4, 5), (2, 12, 5))]
)
def test_samples_of_any_rank(shape: tuple[int, ...], image: tuple[int, int, int]) -> None:
    model = adapt(nn.Identity(), sample_shape=shape, call=lambda net, x, t: net(x) * t.reshape(-1, *[1] * len(shape)))
    assert model.sample_shape == image
    x = torch.randn(2, *image)
    assert torch.equal(model.denoiser(x, torch.tensor(2.0)), 2 * x)


@dataclass
class Output:
    sample: torch.Tensor
    logs: tuple[int, ...] = ()


@pytest.mark.parametrize("wrap", [lambda y: (y, None), lambda y: [y], lambda y: {"out": y}, Output])
def test_outputs_may_be_wrapped(wrap: object) -> None:
    module = nn.Conv2d(2, 2, 3, padding=1)
    model = adapt(module, sample_shape=(2, 4, 4), call=lambda net, x, t: wrap(net(x)))  # type: ignore[operator]
    x = torch.randn(1, 2, 4, 4)
    assert torch.equal(model.denoiser(x, torch.tensor(1)), module(x))


def test_a_learned_variance_is_left_out() -> None:
    module = nn.Conv2d(2, 4, 1)
    model = adapt(module, sample_shape=(2, 4, 4), call=lambda net, x, t: net(x))
    x = torch.randn(1, 2, 4, 4)
    assert torch.equal(model.denoiser(x, torch.tensor(1)), module(x)[:, :2])


def test_the_module_itself_is_left_alone() -> None:
    module = Shift().double().train()
    before = copy.deepcopy(module.state_dict())
    model = adapt(module, sample_shape=(4, 6), conditions=conditions())
    assert module.training
    assert all(weight.requires_grad and weight.dtype == torch.float64 for weight in module.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert not model.denoiser.training
    assert {weight.dtype for weight in model.denoiser.parameters()} == {torch.float32}
    assert not any(weight.requires_grad for weight in model.denoiser.parameters())


def test_examples_become_float32_or_int64_and_go_around() -> None:
    model = adapt(Shift(), sample_shape=(4, 6), conditions=conditions())
    assert [tensor.dtype for tensor in model.conditions.values()] == [torch.float32, torch.int64]
    assert model.example_conditions(3, 1)["label"].tolist() == [3, 1, 3]
    assert model.condition_names == ("by", "label")


def test_the_hash_follows_weights_process_and_examples() -> None:
    def digest(**changes: object) -> str:
        torch.manual_seed(int(changes.pop("seed", 0)))  # type: ignore[call-overload]
        return adapt(Shift(), **{"sample_shape": (4, 6), "conditions": conditions(), **changes}).content_hash  # type: ignore[arg-type]

    first = digest()
    assert digest() == first
    others = [
        digest(seed=1),
        digest(conditions=conditions() | {"label": torch.tensor([0, 1])}),
        digest(time="vp"),
        digest(sample_shape=(3, 6)),
    ]
    assert len({first, *others}) == 5


def test_prediction_and_time_are_the_schedules() -> None:
    assert adapt(nn.Identity(), sample_shape=(3,), call=lambda _, x, t: x).schedule.prediction == "epsilon"
    discrete = adapt(nn.Identity(), sample_shape=(3,), prediction="v", call=lambda _, x, t: x).schedule
    assert isinstance(discrete, NoiseSchedule)
    assert discrete.prediction == "v_prediction"
    assert adapt(nn.Identity(), sample_shape=(3,), time="flow", call=lambda _, x, t: x).schedule.prediction == "flow"
    assert callable(adapt(nn.Identity(), sample_shape=(3,), time=edm(), call=lambda _, x, t: x).schedule.prediction)


def bad_output(module: nn.Module, x: torch.Tensor, t: torch.Tensor) -> object:
    del module, t
    return {"out": "nothing"} if x.shape[-1] == 4 else x[:, :1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_shape": ()}, "sample_shape"),
        ({"sample_shape": (4, 0)}, "sample_shape"),
        ({"sample_shape": (4, 7)}, "does not run"),
        ({"conditions": {"by": torch.ones(1)}}, "does not run.*label"),
        ({"conditions": {"by": torch.tensor(1.0)}}, r"condition by.*\[K"),
        ({"conditions": {"by": torch.ones(1, dtype=torch.bool)}}, "bool"),
        ({"prediction": "guess"}, "guess"),
        ({"call": bad_output}, "does not run"),
        ({"call": bad_output, "sample_shape": (2, 4), "conditions": None}, "instead of a tensor"),
        ({"call": lambda net, x, t, **_: x / 0 * 0, "conditions": None}, "not finite"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(changes: dict[str, object], message: str) -> None:
    settings = {"sample_shape": (4, 6), "conditions": conditions()} | changes
    with pytest.raises(ModelError, match=message):
        adapt(Shift(), **settings)  # type: ignore[arg-type]


def test_guidance_moves_away_from_the_unconditional_output() -> None:
    model = adapt(Shift(), sample_shape=(4, 6), conditions=conditions())
    strong = guided(model, 3.0, {"label": torch.tensor([4])})
    x, t = torch.randn(2, 4, 1, 6), torch.tensor(0.3)
    by, label = torch.tensor([1.0, 2.0]), torch.tensor([0, 1])
    bound = model.denoiser(x, t, by, label)
    free = model.denoiser(x, t, torch.zeros(2), torch.tensor([4, 4]))
    torch.testing.assert_close(strong.denoiser(x, t, by, label), free + 3 * (bound - free))
    assert strong.content_hash not in {
        model.content_hash,
        guided(model, 2.0, {"label": torch.tensor([4])}).content_hash,
    }
    assert strong.condition_names == ("by", "label")


def test_guidance_needs_conditions_of_the_right_shape() -> None:
    with pytest.raises(ModelError, match="conditions"):
        guided(adapt(nn.Identity(), sample_shape=(3,), call=lambda _, x, t: x), 2.0)
    model = adapt(Shift(), sample_shape=(4, 6), conditions=conditions())
    with pytest.raises(ModelError, match="condition label"):
        guided(model, 2.0, {"label": torch.tensor([4, 4])})
    with pytest.raises(ModelError, match="condition label: nothing stands for"):
        guided(model, 2.0)
    with pytest.raises(ModelError, match="condition lable"):
        guided(model, 2.0, {"lable": torch.tensor([4])})


def test_a_guided_model_is_calibrated_and_sampled_like_any_other() -> None:
    torch.manual_seed(2)
    nothing = {"label": torch.tensor([4])}
    model = adapt(Shift(), sample_shape=(4, 6), time=vp(), conditions=conditions(), unconditional=nothing)
    model = guided(model, 2.0)
    sampler = build_sampler("ddpm", 6, model.schedule)
    quantized = modulate(model, calibrate(model, sampler, CalibrationConfig(seeds=2, batch=2)))
    x = start_generation(sampler, noise_batch([1, 2], model.sample_shape))
    given = {"label": torch.tensor([1, 2]), "by": torch.tensor([0.7])}
    images = sample(quantized, sampler, x, seeds=[1, 2], conditions=given)
    exact = sample(model, sampler, x, seeds=[1, 2], conditions=given)
    assert float((images - exact).square().mean()) < 1e-4 * float(exact.square().mean())
    alone = sample(quantized, sampler, x[1:], seeds=[2], conditions={"label": torch.tensor([2]), "by": given["by"]})
    assert torch.equal(alone, images[1:])
    with pytest.raises(CalibrationError, match=r"by.*takes by, label"):
        sample(quantized, sampler, x, seeds=[1, 2], conditions={"label": torch.tensor([1, 2])})
    with pytest.raises(CalibrationError, match="3 entries for 2"):
        sample(quantized, sampler, x, seeds=[1, 2], conditions=given | {"by": torch.ones(3)})


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("settings", [{}, {"bias": False}, {"kdim": 10, "vdim": 6}])
def test_unpacked_attention_gives_the_same_numbers(batch_first: bool, settings: dict[str, object]) -> None:
    torch.manual_seed(3)
    packed = nn.MultiheadAttention(8, 2, batch_first=batch_first, **settings).eval()  # type: ignore[arg-type]
    plain = expand_attention(copy.deepcopy(packed))
    assert isinstance(plain, SeparateAttention)
    q = torch.randn(3, 5, 8)
    k, v = torch.randn(3, 4, int(settings.get("kdim", 8))), torch.randn(3, 4, int(settings.get("vdim", 8)))  # type: ignore[call-overload]
    if not batch_first:
        q, k, v = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)
    added, blocked = torch.randn(5, 4), torch.zeros(3, 4, dtype=torch.bool)
    blocked[1, 2:] = True
    each_head = torch.randn(6, 5, 4)
    for masks in ({}, {"attn_mask": added}, {"key_padding_mask": blocked}, {"attn_mask": each_head}):
        torch.testing.assert_close(plain(q, k, v, **masks)[0], packed(q, k, v, need_weights=False, **masks)[0])
    both = {"attn_mask": added > 0.8, "key_padding_mask": blocked}
    torch.testing.assert_close(plain(q, k, v, **both)[0], packed(q, k, v, need_weights=False, **both)[0])


def test_pytorchs_transformer_calls_the_unpacked_layers() -> None:
    torch.manual_seed(4)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval().requires_grad_(requires_grad=False)
    plain = plain_module(encoder)
    called = []
    for name, part in plain.named_modules():
        if isinstance(part, nn.Linear):
            part.register_forward_hook(lambda *_, name=name: called.append(name))
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(plain(x), encoder(x))
    assert len(called) == len(set(called)) == 12


def test_computed_weights_are_made_plain() -> None:
    torch.manual_seed(5)
    module = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4)).eval()
    plain = plain_module(module)
    assert type(plain[0]) is nn.Linear
    x = torch.randn(2, 4)
    torch.testing.assert_close(plain(x), module(x))


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_the_old_normalizing_hooks_and_batch_norms_are_made_plain() -> None:
    torch.manual_seed(6)
    module = nn.Sequential(
        nn.utils.weight_norm(nn.Conv1d(4, 5, 3)), nn.BatchNorm1d(5), nn.utils.spectral_norm(nn.Conv1d(5, 4, 1))
    )
    for _ in range(3):
        module(3 * torch.randn(8, 4, 9) + 1)  # statistics, and weights that were computed with gradients
    module.eval()
    plain = plain_module(module)
    x = torch.randn(2, 4, 9)
    torch.testing.assert_close(plain(x), module(x))
    assert not any(part._forward_pre_hooks for part in plain.modules())
    assert [type(part).__name__ for part in plain] == ["Conv1d", "ChannelAffine", "Conv1d"]
    assert type(module[1]) is nn.BatchNorm1d


def test_a_model_may_ask_its_layers_for_their_weights_and_sizes() -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(6, 6)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            scale = self.mix.weight.abs().mean() / self.mix.in_features + t[:, None] / 1e4
            return scale * self.mix(x.to(next(self.parameters()).dtype))

    torch.manual_seed(7)
    model = adapt(Asking(), sample_shape=(6,))
    sampler = build_sampler("ddim", 5, model.schedule)
    quantized = modulate(model, calibrate(model, sampler, CalibrationConfig(seeds=2, batch=2)))
    x = start_generation(sampler, noise_batch([1], model.sample_shape))
    exact = sample(model, sampler, x)
    assert float((sample(quantized, sampler, x) - exact).square().mean()) < 1e-4 * float(exact.square().mean())
