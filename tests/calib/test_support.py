"""What stays in floating point, and what cannot become a program, said before calibration starts."""

# ruff: noqa: ARG005 - a denoiser is called with a time, whether it looks at it or not

from __future__ import annotations

import pytest
import torch
from torch import nn

from calib import adapt, build_sampler, calibrate, check_supported
from calib.adapters import PretrainedModel
from calib.calibration import CalibrationConfig
from calib.errors import CalibrationError, ModelError
from calib.support import survey


class Scaled(nn.Linear):
    """Computes something else than its base."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the base's name
        return 2 * super().forward(input)


class Renamed(nn.Linear):
    """Computes what its base does."""


class LoRACompatibleLinear(nn.Linear):
    """As diffusers had it."""

    def __init__(self, width: int, lora_layer: nn.Module | None = None) -> None:
        super().__init__(width, width)
        self.lora_layer = lora_layer

    def forward(self, hidden_states: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        out = super().forward(hidden_states)
        return out if self.lora_layer is None else out + scale * self.lora_layer(hidden_states)


class Everything(nn.Module):
    """One layer for each reason."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Linear(4, 4)
        self.renamed = Renamed(4, 4)
        self.scaled = Scaled(4, 4)
        self.lora_free = LoRACompatibleLinear(4)
        self.lora = LoRACompatibleLinear(4, nn.Linear(4, 4))
        self.twice = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)
        self.read = nn.Linear(4, 4)
        self.wide = nn.Linear(4, 4)
        self.named = nn.Linear(4, 4)
        self.hooked = nn.Linear(4, 4)
        self.circular = nn.Conv1d(3, 3, 3, padding=1, padding_mode="circular")
        self.positions = nn.Parameter(torch.zeros(200, 4))
        self.same = self.plain

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        x = self.lora(self.lora_free(self.scaled(self.renamed(self.plain(x))))) + t[:, None, None]
        x = self.twice(self.twice(x)) + x @ self.read.weight
        x = self.named(input=x) + self.hooked(x) + self.positions[:3]
        return self.circular(x)


def everything() -> PretrainedModel:
    module = Everything()
    module.hooked.register_forward_hook(lambda _m, _i, out: out)
    return adapt(module, sample_shape=(3, 4), time="vp")


def test_every_layer_that_stays_has_its_reason() -> None:
    torch.manual_seed(1)
    support = check_supported(everything())
    assert set(support.modulated) == {"net.plain", "net.renamed", "net.lora_free", "net.lora.lora_layer"}
    wanted = {
        "net.scaled": "Scaled is not a plain",
        "net.lora": "LoRACompatibleLinear is not a plain",
        "net.twice": "called 2 times",
        "net.unused": "never called",
        "net.read": "never called",
        "net.wide": "never called",
        "net.named": "not called with one tensor",
        "net.hooked": "forward hooks",
        "net.circular": "padding mode 'circular'",
    }
    assert set(support.float_layers) == set(wanted)
    for name, text in wanted.items():
        assert text in support.float_layers[name], name
    assert any("positions" in note for note in support.notes)


def test_calibration_leaves_the_same_layers_in_floating_point() -> None:
    torch.manual_seed(1)
    model = everything()
    calibration = calibrate(model, build_sampler("ddim", 3, model.schedule), CalibrationConfig(seeds=2, batch=2))
    support = check_supported(model)
    assert set(calibration.layers) == set(support.modulated)
    assert dict(calibration.float_layers) == dict(support.float_layers)


class Decides(nn.Module):
    """Looks at its data to know what to do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        del t
        y: torch.Tensor = self.layer(x)
        return y if float(x.sum()) > 0 else -y


def test_control_flow_on_data_is_refused_with_its_module() -> None:
    model = adapt(
        nn.Sequential(nn.Identity(), Decides()), sample_shape=(2, 4), call=lambda net, x, t: net[1](net[0](x), t)
    )
    with pytest.raises(ModelError, match=r"net\.1: the model cannot be exported.*depends on data"):
        check_supported(model)


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(ModelError, match="no layer to modulate"):
        check_supported(adapt(nn.Identity(), sample_shape=(3,), call=lambda _, x, t: x))


def test_where_nothing_can_be_modulated_every_reason_is_told_with_its_layers() -> None:
    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time = nn.ModuleList([nn.Linear(1, 1) for _ in range(4)])
            self.over_time = nn.Conv3d(1, 1, 3, padding=1)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.over_time(x)
            for layer in self.time:
                y = y + layer(t.float()[:, None])[:, :, None, None, None]
            return y

    model = adapt(Clip(), sample_shape=(1, 3, 4, 4))
    assert survey(model).float_layers["net.over_time"].endswith("no kernel for Conv3d")
    with pytest.raises(CalibrationError) as caught:
        calibrate(model, build_sampler("ddim", 2, model.schedule), CalibrationConfig(seeds=2, batch=2))
    assert "net.over_time: the device's runtime has no kernel for Conv3d" in caught.value.what
    assert "net.time.0, net.time.1, net.time.2 and others: depends on the timestep only" in caught.value.what


def test_no_hook_stays_behind() -> None:
    model = adapt(nn.Linear(4, 4), sample_shape=(2, 4), call=lambda net, x, t: net(x))
    check_supported(model)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.denoiser.modules())


def test_a_layer_that_the_device_cannot_run_is_named() -> None:
    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.over_time = nn.Linear(4, 4), nn.Conv3d(1, 1, 3, padding=1)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.over_time(self.mix(x)) * t[:, None, None, None, None]

    model = adapt(Frames(), sample_shape=(1, 3, 4, 4))
    with pytest.raises(ModelError, match=r"net\.over_time: .*no kernel for Conv3d"):
        check_supported(model)
