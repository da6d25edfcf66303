"""Conditional models from the command line to the board and back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from calib import PretrainedModel, adapt
from edge.deploy.conditions import to_bytes, wanted_conditions
from edge.errors import JobInputError


@pytest.fixture
def model() -> PretrainedModel:
    examples = {"label": torch.tensor([4, 5]), "hint": torch.tensor([[0.5, 1.0], [2.0, 3.0]])}

    def call(net: nn.Module, x: torch.Tensor, t: torch.Tensor, **_: torch.Tensor) -> torch.Tensor:
        del t
        out: torch.Tensor = net(x)
        return out

    return adapt(nn.Linear(3, 3), sample_shape=(1, 2, 3), conditions=examples, call=call)


def test_values_files_and_examples(model: PretrainedModel, tmp_path: Path) -> None:
    file = tmp_path / "hint.safetensors"
    save_file({"hint": torch.tensor([7.0, 8.0], dtype=torch.float64)}, file)
    assert {name: tensor.tolist() for name, tensor in wanted_conditions([], model).items()} == {
        "label": [4],
        "hint": [[0.5, 1.0]],
    }
    given = wanted_conditions([f"hint={file}", "label=9"], model)
    assert list(given) == ["label", "hint"], "in the model's order"
    assert (given["label"].tolist(), given["hint"].tolist()) == ([9], [[7.0, 8.0]])
    assert to_bytes(given) == bytes([9, *bytes(7)]) + torch.tensor([7.0, 8.0]).numpy().tobytes()
    assert wanted_conditions(["hint=1,-2.5"], model)["hint"].tolist() == [[1.0, -2.5]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label", "NAME=VALUE"),
        ("label=", "NAME=VALUE"),
        ("prompt=1", "takes label, hint"),
        ("label=dog", "whole numbers"),
        ("label=1.5", "whole numbers"),
        ("label=1,2", r"int64 \(1,\)"),
        ("hint=1", r"float32 \(1, 2\)"),
        ("hint=1,nan", "NaN"),
        ("hint=missing.safetensors", "not a readable"),
    ],
)
def test_what_the_model_does_not_take_is_refused(model: PretrainedModel, text: str, message: str) -> None:
    with pytest.raises(JobInputError, match=message) as refused:
        wanted_conditions([text], model)
    assert refused.value.exit_code == 12


def test_a_file_with_other_tensors_is_refused(model: PretrainedModel, tmp_path: Path) -> None:
    save_file({"other": torch.zeros(2), "label": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(JobInputError, match="only label, other"):
        wanted_conditions([f"hint={tmp_path / 'x.safetensors'}"], model)
    with pytest.raises(JobInputError, match="float32 of shape"):
        wanted_conditions([f"label={tmp_path / 'x.safetensors'}"], model)
    with pytest.raises(JobInputError, match="twice"):
        wanted_conditions(["label=1", "label=2"], model)


def test_a_guided_class_conditional_model_runs_on_a_board(tmp_path: Path) -> None:
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(8)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        num_class_embeds=5,
    )
    with torch.no_grad():
        for weight in unet.conv_out.parameters():
            weight.mul_(0.05)
    unet.save_pretrained(tmp_path / "model" / "unet", safe_serialization=True)
    DDPMScheduler().save_config(tmp_path / "model" / "scheduler")
    (tmp_path / "model" / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "UNet2DModel"]}))
    words = f"--board host --model {tmp_path / 'model'} --virtual --sampler ddpm --steps 4 --guidance 2"
    words += f" --condition class_labels=3 --generate 1 --generate 2 --out {tmp_path / 'out'}"
    command = [sys.executable, "-m", "edge.deploy", *words.split(), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [job["steps"] for job in report["jobs"]] == [4, 4]
    assert all(job["psnr_oracle_db"] is None or job["psnr_oracle_db"] > 50 for job in report["jobs"])
