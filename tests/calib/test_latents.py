"""The decoder of a latent pipeline gives what diffusers' pipelines give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from calib import load_decoder
from calib.errors import ModelError


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=3, scaling_factor=0.5)
    vae.save_pretrained(tmp_path / "vae", safe_serialization=True)
    return tmp_path


def test_latents_are_scaled_back_and_decoded(pipeline: Path) -> None:
    decoder = load_decoder(pipeline)
    assert decoder is not None
    vae = AutoencoderKL.from_pretrained(pipeline / "vae", low_cpu_mem_usage=False)
    latents = torch.randn(2, 3, 4, 6)
    with torch.no_grad():
        expected = vae.decode(latents / 0.5).sample
    torch.testing.assert_close(decoder(latents), expected)
    config = json.loads((pipeline / "vae" / "config.json").read_text())
    (pipeline / "vae" / "config.json").write_text(json.dumps(config | {"shift_factor": 0.25}))
    shifted = load_decoder(pipeline)
    assert shifted is not None
    with torch.no_grad():
        torch.testing.assert_close(shifted(latents), vae.decode(latents / 0.5 + 0.25).sample)


def test_a_pipeline_without_a_decoder_has_none(tmp_path: Path) -> None:
    assert load_decoder(tmp_path) is None


def test_other_autoencoders_and_pickles_are_refused(pipeline: Path) -> None:
    config = json.loads((pipeline / "vae" / "config.json").read_text())
    (pipeline / "vae" / "diffusion_pytorch_model.safetensors").rename(pipeline / "vae" / "weights.bin")
    with pytest.raises(ModelError, match="pickle"):
        load_decoder(pipeline)
    (pipeline / "vae" / "config.json").write_text(json.dumps(config | {"_class_name": "VQModel"}))
    with pytest.raises(ModelError, match="'VQModel' is not supported"):
        load_decoder(pipeline)
