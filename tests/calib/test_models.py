"""What loading accepts, and what it refuses."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

from calib.errors import ModelError
from calib.models import PICKLE_SUFFIXES, load_model

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(tiny_model_folder, tmp_path / "tiny")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Copies: ``load_file`` maps the file, which the test then overwrites."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def edit_json(path: Path, **changes: object) -> None:
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | changes))


def test_a_pipeline_folder_gives_what_diffusers_gives(tiny_model_folder: Path) -> None:
    model = load_model(tiny_model_folder)
    assert model.sample_shape == (1, 16, 16)
    assert model.notes == ()
    unet = UNet2DModel.from_pretrained(tiny_model_folder / "unet", use_safetensors=True, low_cpu_mem_usage=False)
    x, t = torch.linspace(-1, 1, 256).reshape(1, 1, 16, 16), torch.tensor(500)
    with torch.no_grad():
        assert torch.equal(model.denoiser(x, t), unet(x, t).sample)


def test_a_bare_unet_folder_finds_the_schedule_beside_it_or_says_what_it_assumes(folder: Path) -> None:
    edit_json(folder / "scheduler" / "scheduler_config.json", clip_sample=False)
    beside = load_model(folder / "unet")
    assert beside.schedule.clip is None
    shutil.rmtree(folder / "scheduler")
    alone = load_model(folder / "unet")
    assert alone.schedule.clip == 1.0
    assert "scheduler_config.json" in alone.notes[0]


def test_half_precision_weights_are_read_as_float32(folder: Path) -> None:
    unet = folder / "unet"
    half = {name: tensor.half() for name, tensor in load_file(unet / WEIGHTS).items()}
    (unet / WEIGHTS).unlink()
    save_file(half, unet / "diffusion_pytorch_model.fp16.safetensors", metadata={"format": "pt"})
    parameters = dict(load_model(folder).denoiser.unet.named_parameters())
    assert all(torch.equal(parameters[name], tensor.float()) for name, tensor in half.items())


def test_the_hash_follows_weights_and_schedule(folder: Path) -> None:
    first = load_model(folder).content_hash
    assert load_model(folder).content_hash == first
    edit_json(folder / "scheduler" / "scheduler_config.json", beta_end=0.021)
    second = load_model(folder).content_hash
    path = folder / "unet" / WEIGHTS
    tensors = read_tensors(path)
    tensors["conv_in.bias"] += 1e-3
    save_file(tensors, path, metadata={"format": "pt"})
    assert len({first, second, load_model(folder).content_hash}) == 3


@pytest.mark.parametrize("suffix", sorted(PICKLE_SUFFIXES))
def test_pickles_are_refused_unread(folder: Path, suffix: str) -> None:
    (folder / "unet" / WEIGHTS).unlink()
    pickle = folder / "unet" / f"diffusion_pytorch_model{suffix}"
    pickle.write_bytes(b"not even a pickle")
    for path in (folder, pickle):
        with pytest.raises(ModelError, match="pickle"):
            load_model(path)


def test_missing_things_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="neither model_index"):
        load_model(tmp_path)
    (folder / "unet" / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="no weights"):
        load_model(folder)
    (folder / "unet" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        load_model(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"_class_name": "AutoencoderKL"},
        {"class_embed_type": "identity"},
        {"out_channels": 2},
        {"sample_size": None},
        {"sample_size": [16, 0]},
        {"block_out_channels": [8, 16]},
    ],
)
def test_other_kinds_of_model_are_refused(folder: Path, change: dict[str, object]) -> None:
    edit_json(folder / "unet" / "config.json", **change)
    with pytest.raises(ModelError):
        load_model(folder)


def test_damaged_weights_are_refused(folder: Path) -> None:
    path = folder / "unet" / WEIGHTS
    whole = path.read_bytes()
    tensors = read_tensors(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="damaged"):
        load_model(folder)
    some = dict(tensors)
    del some["conv_out.weight"]
    save_file(some, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="missing keys"):
        load_model(folder)
    tensors["conv_in.bias"][0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="finite"):
        load_model(folder)


def test_damaged_json_is_refused(folder: Path) -> None:
    (folder / "model_index.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        load_model(folder)
    (folder / "model_index.json").write_text('{"vae": []}')
    with pytest.raises(ModelError, match="no unet"):
        load_model(folder)
    (folder / "model_index.json").write_text("[]")
    with pytest.raises(ModelError, match="object"):
        load_model(folder)
