"""What loading accepts, and what it refuses."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from safetensors.torch import load_file, save_file

from calib.adapters import guided
from calib.errors import ModelError
from calib.models import PICKLE_SUFFIXES, _read_schedule, load_model
from calib.samplers import build_sampler
from calib.schedules import ContinuousSchedule

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


def save_part(model: torch.nn.Module, folder: Path, part: str, scheduler: object) -> Path:
    """A pipeline folder around one network."""
    model.save_pretrained(folder / part, safe_serialization=True)
    scheduler.save_config(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({part: ["diffusers", type(model).__name__]}))
    return folder


def small_dit(**settings: object) -> DiTTransformer2DModel:
    torch.manual_seed(1)
    given = {"in_channels": 4, "out_channels": 8, "sample_size": 4, "num_embeds_ada_norm": 10} | settings
    return DiTTransformer2DModel(num_attention_heads=1, attention_head_dim=8, num_layers=1, **given).eval()


def test_a_dit_folder(tmp_path: Path) -> None:
    dit = small_dit()
    model = load_model(save_part(dit, tmp_path, "transformer", DDPMScheduler(clip_sample=False)))
    assert model.sample_shape == (4, 4, 4)
    assert model.conditions["class_labels"].tolist() == [0, 3, 6, 9]
    x, t, label = torch.randn(2, 4, 4, 4), torch.tensor(300), torch.tensor([3, 5])
    expected = dit(x, t.expand(2), class_labels=label).sample[:, :4]
    torch.testing.assert_close(model.denoiser(x, t, label), expected)
    free = dit(x, t.expand(2), class_labels=torch.tensor([10, 10])).sample[:, :4]
    strong = guided(model, 4.0)
    torch.testing.assert_close(strong.denoiser(x, t, label), free + 4 * (expected - free), rtol=1e-4, atol=1e-5)


def test_a_flow_folder_brings_its_shift(tmp_path: Path) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    model = load_model(save_part(small_dit(), tmp_path, "transformer", scheduler))
    scheduler.set_timesteps(7)
    torch.testing.assert_close(build_sampler("flow-euler", 7, model.schedule).timesteps, scheduler.timesteps)
    edit_json(tmp_path / "scheduler" / "scheduler_config.json", use_dynamic_shifting=True)
    with pytest.raises(ModelError, match="use_dynamic_shifting"):
        load_model(tmp_path)


def test_a_class_conditional_unet(folder: Path) -> None:
    torch.manual_seed(2)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        num_class_embeds=3,
    ).eval()
    shutil.rmtree(folder / "unet")
    model = load_model(save_part(unet, folder, "unet", DDPMScheduler()))
    x, t = torch.randn(2, 1, 8, 8), torch.tensor(20)
    label = torch.tensor([2, 0])
    torch.testing.assert_close(model.denoiser(x, t, label), unet(x, t.expand(2), class_labels=label).sample)
    assert model.example_conditions(4)["class_labels"].tolist() == [0, 1, 2, 0]


def text_unet(**settings: object) -> UNet2DConditionModel:
    torch.manual_seed(3)
    return UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8,),
        down_block_types=("CrossAttnDownBlock2D",),
        mid_block_type=None,
        up_block_types=("CrossAttnUpBlock2D",),
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=12,
        **settings,
    ).eval()


def test_a_text_conditional_unet_takes_real_embeddings(tmp_path: Path) -> None:
    unet = text_unet()
    folder = save_part(unet, tmp_path, "unet", DDPMScheduler(prediction_type="v_prediction"))
    model = load_model(folder)
    assert model.conditions["encoder_hidden_states"].shape == (4, 77, 12)
    assert "embeddings" in model.notes[0]
    assert model.schedule.prediction == "v_prediction"
    (folder / "text_encoder").mkdir()
    (folder / "text_encoder" / "config.json").write_text('{"max_position_embeddings": 5}')
    real = torch.randn(2, 5, 12)
    given = load_model(folder, {"encoder_hidden_states": real})
    assert given.notes == ()
    assert given.content_hash != load_model(folder).content_hash
    x, t = torch.randn(2, 4, 8, 8), torch.tensor(20)
    torch.testing.assert_close(given.denoiser(x, t, real), unet(x, t.expand(2), real).sample)
    with pytest.raises(ModelError, match="takes no prompt"):
        load_model(folder, {"prompt": real})
    with pytest.raises(ModelError, match=r"float32 \[K, 5, 12\]"):
        load_model(folder, {"encoder_hidden_states": real[..., :7]})


def test_sdxls_further_conditions(tmp_path: Path) -> None:
    unet = text_unet(
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=30
    )
    model = load_model(save_part(unet, tmp_path, "unet", DDPMScheduler()))
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in model.conditions.items()}
    assert shapes == {"encoder_hidden_states": (77, 12), "text_embeds": (6,), "time_ids": (6,)}
    x, t, given = torch.randn(2, 4, 8, 8), torch.tensor(20), model.example_conditions(2)
    added = {"text_embeds": given["text_embeds"], "time_ids": given["time_ids"]}
    expected = unet(x, t.expand(2), given["encoder_hidden_states"], added_cond_kwargs=added).sample
    torch.testing.assert_close(model.denoiser(x, t, *given.values()), expected)


def test_weights_in_parts(folder: Path) -> None:
    expected = load_model(folder)
    path = folder / "unet" / WEIGHTS
    tensors, names = read_tensors(path), sorted(read_tensors(path))
    path.unlink()
    halves = {"part-1.safetensors": names[::2], "part-2.safetensors": names[1::2]}
    for part, keys in halves.items():
        save_file({key: tensors[key] for key in keys}, path.with_name(part), metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: part for part, keys in halves.items() for key in keys}}
    path.with_name(f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    loaded = dict(load_model(folder).denoiser.named_parameters())
    assert all(torch.equal(loaded[name], weight) for name, weight in expected.denoiser.named_parameters())
    path.with_name("part-2.safetensors").unlink()
    with pytest.raises(ModelError, match=r"missing: \['part-2"):
        load_model(folder)


@pytest.mark.parametrize("name", ["ScoreSdeVeScheduler", "EDMEulerScheduler"])
def test_a_scheduler_over_noise_levels_is_read_as_such(name: str) -> None:
    schedule = _read_schedule(dict(getattr(diffusers, name)(sigma_max=40.0).config) | {"_class_name": name}, "here")
    assert isinstance(schedule, ContinuousSchedule)
    assert schedule.sigma(np.array([1.0]))[0] == pytest.approx(40.0)
    seen = 40.0 if name == "ScoreSdeVeScheduler" else np.log(40.0) / 4
    assert schedule.denoiser_time(np.array([1.0]))[0] == pytest.approx(seen)


def test_a_scheduler_of_another_process_is_refused() -> None:
    with pytest.raises(ModelError, match="VQDiffusionScheduler is not supported"):
        _read_schedule({"_class_name": "VQDiffusionScheduler", "num_vec_classes": 4096}, "here")
