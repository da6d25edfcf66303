"""The networks that are measured: the CIFAR-10 DDPM UNet, its variations, the demo model.

Weights are random and seeded: what a step costs does not depend on them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from calib.adapters import AdaptedDenoiser, PretrainedModel
from calib.models import load_model
from calib.schedules import NoiseSchedule
from tests.bench.instructions import BenchError

SEED = 20_260_101
CIFAR_WIDTHS = (128, 256, 256, 256)


@dataclass(frozen=True)
class UNetShape:
    """The architecture of google/ddpm-cifar10-32, in any size.

    Attributes:
        size: of the square images, in pixels; a multiple of 8.
        widths: channels of the four levels; multiples of 32.
        channels: of the images.
        head_channels: of one attention head; None = one head, as in google/ddpm-cifar10-32.
        shallow: only the first two levels, one block each: quick to lower, for grids of layer shapes.
        attention: whether there is any.
    """

    size: int = 32
    widths: tuple[int, int, int, int] = CIFAR_WIDTHS
    channels: int = 3
    shallow: bool = False
    attention: bool = True
    head_channels: int | None = None

    @property
    def name(self) -> str:
        """What tables call it."""
        if self.widths == CIFAR_WIDTHS and not self.shallow:
            return "cifar10" if self.head_channels is None else "cifar10-heads"
        kind = "unet" if not self.shallow else "grid" if self.attention else "plain"
        return f"{kind}-{self.size}px-{self.widths[0]}"


@dataclass(frozen=True)
class LayerShape:
    """One linear operator of a network, batch 1.

    Attributes:
        name: dotted, in the network.
        macs: multiply-accumulates of one pass.
        inputs: elements of its input.
        outputs: elements of its output.
        weights: elements of its weight.
    """

    name: str
    macs: int
    inputs: int
    outputs: int
    weights: int


def build_unet(shape: UNetShape) -> nn.Module:
    """The network with seeded random weights, float32, for inference."""
    from diffusers import UNet2DModel

    torch.manual_seed(SEED)
    levels = 2 if shape.shallow else 4
    down = ["DownBlock2D", "AttnDownBlock2D" if shape.attention else "DownBlock2D", "DownBlock2D", "DownBlock2D"]
    up = ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D" if shape.attention else "UpBlock2D", "UpBlock2D"]
    unet: nn.Module = UNet2DModel(
        sample_size=shape.size,
        in_channels=shape.channels,
        out_channels=shape.channels,
        layers_per_block=1 if shape.shallow else 2,
        block_out_channels=shape.widths[:levels],
        down_block_types=tuple(down[:levels]),
        up_block_types=tuple(up[-levels:]),
        add_attention=shape.attention,
        attention_head_dim=shape.head_channels,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        norm_num_groups=32,
    )
    return unet.eval().requires_grad_(requires_grad=False)


def unet_model(shape: UNetShape) -> PretrainedModel:
    """The network as the kit takes it, with DDPM's linear schedule."""
    identity = hashlib.sha256(json.dumps([asdict(shape), SEED]).encode()).hexdigest()
    sample_shape = (shape.channels, shape.size, shape.size)
    denoiser = AdaptedDenoiser(build_unet(shape), sample_shape, attribute="unet")
    denoiser.eval().requires_grad_(requires_grad=False)
    return PretrainedModel(denoiser, NoiseSchedule.linear(), sample_shape, shape.name, identity)


def model_named(name: str) -> PretrainedModel:
    """The model of that name: cifar10, cifar10-heads, demo, or unet-SIZEpx-WIDTH.

    The levels of the last have 1, 2, 2, 2 times WIDTH channels. "grid" in place of "unet" makes it shallow, "plain"
    free of attention, too.

    Raises:
        BenchError: no such name.
    """
    if name == "demo":
        return load_model()
    if name in {"cifar10", "cifar10-heads"}:
        return unet_model(UNetShape(head_channels=8 if name.endswith("heads") else None))
    match = re.fullmatch(r"(unet|grid|plain)-(\d+)px-(\d+)", name)
    if match is None:
        raise BenchError(f"unknown model {name!r}", mend="cifar10, demo, unet-32px-64 are such names")
    first = int(match[3])
    widths = (first, 2 * first, 2 * first, 2 * first)
    shallow, attention = match[1] != "unet", match[1] != "plain"
    return unet_model(UNetShape(int(match[2]), widths, shallow=shallow, attention=attention))


def layer_shapes(denoiser: Callable[[Tensor, Tensor], Tensor], sample_shape: tuple[int, int, int]) -> list[LayerShape]:
    """Every linear operator that one call of ``denoiser`` (an nn.Module) runs, in order."""
    assert isinstance(denoiser, nn.Module)
    found: list[LayerShape] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...], result: Tensor) -> None:
            weight: Any = module.weight
            weights, inputs, outputs = weight.numel(), arguments[0].numel(), result.numel()
            transposed = isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d)
            each = weights // weight.shape[0]
            macs = (inputs if transposed else outputs) * each
            found.append(LayerShape(name, macs, inputs, outputs, weights))

        return hook

    kinds = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)
    hooks = [m.register_forward_hook(watch(name)) for name, m in denoiser.named_modules() if isinstance(m, kinds)]
    with torch.no_grad():
        denoiser(torch.zeros(1, *sample_shape), torch.tensor(1))
    for hook in hooks:
        hook.remove()
    return found
