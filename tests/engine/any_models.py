"""Small denoisers of every kind that is not the demo's: random weights, shapes that nothing divides."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from calib import PretrainedModel, adapt, edm, flow, guided, load_model, ve, vp


class MixerBlock(nn.Module):
    """Mixes patches, then channels (Tolstikhin et al., 2021)."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.norm_patches = nn.LayerNorm([width, patches])
        self.patches = nn.Sequential(nn.Linear(patches, 40), nn.GELU(), nn.Linear(40, patches))
        self.norm_channels = nn.LayerNorm([patches, width])
        self.channels = nn.Sequential(nn.Linear(width, 40), nn.GELU(), nn.Linear(40, width))

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        y = y + self.patches(self.norm_patches(y))
        y = y.transpose(1, 2)
        y = y + self.channels(self.norm_channels(y))
        return y.transpose(1, 2)


class ScoreMixer(nn.Module):
    """A score network in continuous time that takes it first: ``(t, y) -> score``."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_in = nn.Conv2d(2, 24, 3, stride=3)
        self.blocks = nn.ModuleList([MixerBlock(35, 24) for _ in range(2)])
        self.norm = nn.LayerNorm([24, 35])
        self.patch_out = nn.ConvTranspose2d(24, 1, 3, stride=3)

    def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        time = (t / 10)[:, None, None, None].expand(len(y), 1, *y.shape[2:])
        z = self.patch_in(torch.cat([y, time], 1))
        shape = z.shape
        z = z.flatten(2)
        for block in self.blocks:
            z = block(z)
        return self.patch_out(self.norm(z).reshape(shape))


class Wave(nn.Module):
    """Conv1d on 3 x 37, a length that halves to 19; velocities of a flow."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, 16), nn.SiLU(), nn.Linear(16, 16))
        self.first = nn.Conv1d(3, 16, 5, padding=2)
        self.down = nn.Conv1d(16, 24, 3, stride=2, padding=1, groups=2)
        self.up = nn.ConvTranspose1d(24, 16, 3, stride=2, padding=1)
        self.last = nn.Conv1d(16, 3, 5, padding=2, bias=False)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        high = functional.silu(self.first(x) + self.time(t[:, None] / 1000)[:, :, None])
        return self.last(high + self.up(functional.silu(self.down(high))))


class Mobile(nn.Module):
    """Depthwise convolution, trained batch norm, squeeze and excitation, pixel shuffle cut to an odd size."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.weight_norm(nn.Conv2d(3, 16, 3, padding="same"))
        self.down = nn.Conv2d(16, 24, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.depthwise = nn.Conv2d(24, 24, 5, padding=2, groups=24)
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(24, 6, 1), nn.ReLU(), nn.Conv2d(6, 24, 1))
        self.up = nn.Conv2d(24, 64, 1)
        self.last = nn.Conv2d(16, 3, 3, padding=1)
        with torch.no_grad():
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        x = x.to(self.down.weight.dtype)
        high = functional.hardswish(self.first(x) + t[:, None, None, None])
        low = self.depthwise(functional.relu(self.norm(self.down(high))))
        low = low * torch.sigmoid(self.squeeze(low))
        raised = functional.pixel_shuffle(self.up(low), self.down.stride[0])
        return self.last(high + raised[..., : high.shape[2], : high.shape[3]])


class Tokens(nn.Module):
    """PyTorch's own transformer over 7 tokens of width 10, with a mask; an EDM network."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(10, 24)
        layer = nn.TransformerEncoderLayer(24, 2, 48, dropout=0.1, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.write = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor, t: torch.Tensor, hint: torch.Tensor) -> torch.Tensor:
        h = self.read(x) + t[:, None, None] + hint[:, None]
        return self.write(self.encoder(h))


def mixer() -> PretrainedModel:
    torch.manual_seed(11)
    return adapt(
        ScoreMixer(),
        sample_shape=(1, 15, 21),
        time=vp(lambda t: t, latest=10.0, prediction="score"),
        call=lambda net, x, t: net(t, x),
    )


def wave() -> PretrainedModel:
    torch.manual_seed(12)
    return adapt(Wave(), sample_shape=(3, 37), time=flow())


def mobile() -> PretrainedModel:
    torch.manual_seed(17)
    net = Mobile()
    net.eval()(torch.zeros(1, 3, 9, 7), torch.zeros(1))  # the old weight norm leaves a weight with gradients behind
    return adapt(net, sample_shape=(3, 9, 7), prediction="scaled_score", time=ve(0.05, 20.0, time="log_sigma"))


def tokens() -> PretrainedModel:
    torch.manual_seed(13)
    return adapt(Tokens(), sample_shape=(7, 10), time=edm(), conditions={"hint": torch.randn(3, 24)})


def label_unet(folder: Path) -> PretrainedModel:
    from diffusers import UNet2DModel

    torch.manual_seed(14)
    model = UNet2DModel(
        sample_size=(9, 11),
        in_channels=2,
        out_channels=2,
        layers_per_block=1,
        block_out_channels=(16,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        attention_head_dim=8,
        num_class_embeds=7,
    )
    quiet(model.conv_out)
    return load_model(save(model, folder, "unet", {"beta_schedule": "scaled_linear", "timestep_spacing": "trailing"}))


def text_unet(folder: Path) -> PretrainedModel:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(15)
    model = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16,),
        down_block_types=("CrossAttnDownBlock2D",),
        mid_block_type=None,
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        attention_head_dim=8,
        cross_attention_dim=20,
    )
    quiet(model.conv_out)
    (folder / "text_encoder").mkdir()
    (folder / "text_encoder" / "config.json").write_text(json.dumps({"max_position_embeddings": 9}))
    return guided(
        load_model(save(model, folder, "unet", {"prediction_type": "v_prediction", "clip_sample": False})), 3.0
    )


def dit(folder: Path) -> PretrainedModel:
    from diffusers import DiTTransformer2DModel

    torch.manual_seed(16)
    model = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=6,
        patch_size=2,
        num_embeds_ada_norm=10,
    )
    return load_model(save(model, folder, "transformer", {"clip_sample": False}))


def quiet(layer: nn.Module) -> None:
    """Makes the network say little, so that rounding differences do not grow to images of their own."""
    with torch.no_grad():
        for weight in layer.parameters():
            weight.mul_(0.05)


def save(model: nn.Module, folder: Path, part: str, scheduler: dict[str, object]) -> Path:
    """A pipeline folder with the model's weights."""
    from diffusers import DDPMScheduler

    model.save_pretrained(folder / part, safe_serialization=True)
    DDPMScheduler(**scheduler).save_config(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({part: ["diffusers", type(model).__name__]}))
    return folder
