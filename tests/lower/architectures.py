"""Small denoisers of every architecture that fusion knows, with seeded random weights; plain ``(x, t) -> out``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

Shape = tuple[int, int, int]


class Conditioned(nn.Module):
    """A diffusers model with its other inputs fixed.

    Args:
        model: returns an output with ``sample``.
        channels: how many of the output's channels are the prediction.
        inputs: by keyword.
    """

    def __init__(self, model: nn.Module, channels: int, **inputs: torch.Tensor) -> None:
        super().__init__()
        self.model = model
        self.channels = channels
        self.names = tuple(inputs)
        for name, value in inputs.items():
            self.register_buffer(name, value)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        inputs = {name: getattr(self, name) for name in self.names}
        every = {name: value.expand(x.shape[0], *value.shape[1:]) for name, value in inputs.items()}
        out: torch.Tensor = self.model(x, t.reshape(1), **every).sample
        return out[:, : self.channels]


def unet() -> tuple[nn.Module, Shape]:
    """The CIFAR-10 DDPM architecture, an eighth as wide: padded downsampling, attention of one head."""
    from diffusers import UNet2DModel

    model = UNet2DModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=None,
    )
    return Conditioned(model, 3), (3, 16, 16)


def scale_shift_unet() -> tuple[nn.Module, Shape]:
    """Time embedding as scale and shift of the second norm, nearest upsampling, odd size."""
    from diffusers import UNet2DModel

    model = UNet2DModel(
        sample_size=(12, 20),
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("ResnetDownsampleBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "ResnetUpsampleBlock2D"),
        norm_num_groups=4,
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=8,
    )
    return Conditioned(model, 1), (1, 12, 20)


def text_unet() -> tuple[nn.Module, Shape]:
    """Cross attention to a text of which keys and values never change."""
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=8,
        cross_attention_dim=24,
        attention_head_dim=8,
    )
    text = torch.randn(1, 7, 24, generator=torch.Generator().manual_seed(4))
    return Conditioned(model, 4, encoder_hidden_states=text), (4, 8, 8)


def transformer() -> tuple[nn.Module, Shape]:
    """DiT: patches, adaptive layer norm with gates, a class label."""
    from diffusers import DiTTransformer2DModel

    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, sample_size=8
    )
    model.eval()
    return Conditioned(model, 4, class_labels=torch.tensor([3])), (4, 8, 8)


class Mixer(nn.Module):
    """An MLP-mixer score network: patches, layer norms, linear layers across tokens and across channels."""

    def __init__(self, width: int = 24, patch: int = 4, size: int = 16) -> None:
        super().__init__()
        tokens = (size // patch) ** 2
        self.patch, self.side = patch, size // patch
        self.embed = nn.Linear(patch * patch, width)
        self.time = nn.Linear(1, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.across = nn.ModuleList(
            nn.Sequential(nn.Linear(tokens, 20), nn.GELU(), nn.Linear(20, tokens)) for _ in "ab"
        )
        self.along = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 40), nn.GELU(approximate="tanh"), nn.Linear(40, width)) for _ in "ab"
        )
        self.out = nn.Linear(width, patch * patch)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        patches = functional.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2)
        h = self.embed(patches) + self.time(t.reshape(1, 1) / 1000.0)[:, None]
        for index in range(2):
            h = h + self.across[index](self.norms[2 * index](h).transpose(1, 2)).transpose(1, 2)
            h = h + self.along[index](self.norms[2 * index + 1](h))
        rows = self.out(h).transpose(1, 2).reshape(x.shape[0], -1, self.side, self.side)
        return functional.pixel_shuffle(rows, self.patch)


class RootMeanSquare(nn.Module):
    """RMSNorm as models write it out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Row(nn.Module):
    """A one-dimensional U-Net of odd length with group norm, written-out SiLU and attention, transposed convolution."""

    def __init__(self, channels: int = 2, width: int = 8) -> None:
        super().__init__()
        self.time = nn.Linear(1, width)
        self.first = nn.Conv1d(channels, width, 3, padding=1)
        self.norm = nn.GroupNorm(4, width)
        self.down = nn.Conv1d(width, 2 * width, 3, stride=2, padding=1)
        self.rms = RootMeanSquare(2 * width)
        self.qkv = nn.Linear(2 * width, 6 * width)
        self.mixed = nn.Linear(2 * width, 2 * width)
        self.up = nn.ConvTranspose1d(2 * width, width, 3, stride=2, padding=1)
        self.last = nn.Conv1d(2 * width, channels, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        high = self.norm(self.first(x.flatten(2)) + self.time(t.reshape(1, 1) / 1000.0)[:, :, None])
        high = high * torch.sigmoid(high)
        low = self.down(high).transpose(1, 2)
        batch, tokens, width = low.shape
        q, k, v = self.qkv(self.rms(low)).reshape(batch, tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax((q @ k.transpose(-2, -1)) * (width // 2) ** -0.5, dim=-1)
        low = low + self.mixed((weights @ v).transpose(1, 2).reshape(batch, tokens, width))
        up = functional.relu_(self.up(low.transpose(1, 2)))
        out: torch.Tensor = self.last(torch.cat([up, high], 1)).reshape(x.shape)
        return out


class Raised(nn.Module):
    """Transposed and grouped convolutions on odd sizes, a part in floating point that keeps its own layout."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(1, 8)
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.GroupNorm(1, 8)
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1)
        self.last = nn.Conv2d(9, 3, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        low = functional.silu(self.first(x) * self.time(t.reshape(1, 1) / 1000.0)[:, :, None, None])
        low = self.depthwise(self.norm(low)) * functional.avg_pool2d(low, 3, 1, 1)
        up = torch.cat([self.up(functional.gelu(low)), x], 1)
        left, right = up.chunk(2, 3) if up.shape[3] % 2 == 0 else (up[..., :4], up[..., 4:])
        out: torch.Tensor = self.last(torch.cat([right, left], 3))
        return out


ARCHITECTURES: dict[str, Callable[[], tuple[nn.Module, Shape]]] = {
    "unet": unet,
    "scale_shift_unet": scale_shift_unet,
    "text_unet": text_unet,
    "transformer": transformer,
    "mixer": lambda: (Mixer(), (1, 16, 16)),
    "row": lambda: (Row(), (2, 1, 33)),
    "raised": lambda: (Raised(), (3, 11, 9)),
}


def build(name: str) -> tuple[nn.Module, Shape]:
    """A denoiser in eval mode, and the shape (C, H, W) of its samples."""
    torch.manual_seed(11)
    module, shape = ARCHITECTURES[name]()
    return module.eval().requires_grad_(requires_grad=False), shape
