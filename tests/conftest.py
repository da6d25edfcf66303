"""Fixtures that more than one package's tests use."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

TINY_SEED = 7

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the other cores have workers of their own

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell leaves it so to what it starts in the background, and so would the tests to the programs that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with a small attention UNet (1x16x16, seeded random weights) and its schedule.

    Layout: ``model_index.json``, ``unet/`` (config and fp32 safetensors), ``scheduler/``.
    """
    folder = tmp_path_factory.mktemp("tiny_model")
    write_tiny_model(folder)
    return folder


def write_tiny_model(folder: Path) -> None:
    """What the fixture gives, for those who are no test."""
    import torch
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(TINY_SEED)
    model = UNet2DModel(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=16,
    ).eval()
    model.save_pretrained(folder / "unet", safe_serialization=True)
    DDPMScheduler(num_train_timesteps=1000).save_config(folder / "scheduler")
    (folder / "model_index.json").write_text(
        '{"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"], '
        '"unet": ["diffusers", "UNet2DModel"]}\n'
    )
