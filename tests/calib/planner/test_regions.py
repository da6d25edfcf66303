"""Regions of different architectures, found by running them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import nn

from calib.adapters import PretrainedModel, adapt
from calib.models import load_model
from calib.operators import macs_of
from calib.planner.regions import Region, find_regions, idle_layers, run_model
from calib.support import survey

if TYPE_CHECKING:
    from pathlib import Path


def regions_of(model: PretrainedModel) -> tuple[Region, ...]:
    work: dict[str, float] = {}
    modules = dict(model.denoiser.named_modules())
    handles = [
        modules[name].register_forward_hook(
            lambda module, inputs, y, name=name: work.__setitem__(name, macs_of(module, inputs[0], y, 1))
        )
        for name in survey(model).modulated
    ]
    with torch.no_grad():
        run_model(model, torch.zeros(1, *model.sample_shape))
    for handle in handles:
        handle.remove()
    return find_regions(model, work)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.tokens = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.channels = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        h = h + self.tokens(self.norm(h))
        return h + self.channels(h.transpose(1, 2)).transpose(1, 2)


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, 8, 2, 2)
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.leave = nn.ConvTranspose2d(8, 1, 2, 2)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        del t
        h = self.enter(x).flatten(2)
        for block in self.blocks:
            h = block(h)
        return self.leave(h.reshape(-1, 8, 4, 4))


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.SiLU()) for _ in range(4)))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        del t
        out: torch.Tensor = self.layers(x)
        return out


def test_a_unets_deep_halves_nest(tiny_model_folder: Path) -> None:
    found = regions_of(load_model(tiny_model_folder))
    assert len(found) >= 2
    assert all(inner.idle < outer.idle for inner, outer in itertools.pairwise(found))
    assert all(inner.saving < outer.saving < 1 for inner, outer in itertools.pairwise(found))
    assert all(len(region.points) == 1 for region in found)
    assert "up_blocks" in found[-1].points[0]
    assert any("mid_block" in layer for layer in found[-1].idle)
    assert "unet.conv_in" not in found[-1].idle


def test_a_mixers_middle_branches_are_reused_together_and_the_outermost_go_on() -> None:
    found = regions_of(adapt(Mixer(), sample_shape=(1, 8, 8), prediction="epsilon"))
    assert found
    assert found[0].points == tuple(
        f"net.blocks.{block}.{branch}" for block in (1, 2) for branch in ("tokens", "channels")
    )
    assert all(point.split(".")[2] in {"0", "1", "2", "3"} for point in found[-1].points)
    assert not any("enter" in layer or "leave" in layer for region in found for layer in region.idle)


def test_a_plain_chain_has_none() -> None:
    assert regions_of(adapt(Chain(), sample_shape=(1, 8, 8), prediction="epsilon")) == ()


def test_a_layer_is_idle_when_nothing_reads_it(tiny_model_folder: Path) -> None:
    model = load_model(tiny_model_folder)
    layers = survey(model).modulated
    idle = idle_layers(model, ["unet.up_blocks.0"], layers)
    assert "unet.mid_block.resnets.0.conv1" in idle
    assert "unet.up_blocks.0.resnets.0.conv1" in idle
    assert "unet.up_blocks.1.resnets.0.conv1" not in idle
    assert idle_layers(model, [], layers) == frozenset()
