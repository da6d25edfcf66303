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


LABELLED = """
import torch
from torch import nn

from calib import adapt, flow


class Labelled(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(6, 16)
        self.first, self.last = nn.Conv1d(2, 16, 3, padding=1), nn.Conv1d(16, 2, 3, padding=1)

    def forward(self, x, t, label):
        return self.last(torch.relu(self.first(x) + self.rows(label)[:, :, None] + t[:, None, None]))


def build():
    torch.manual_seed(8)
    return adapt(
        Labelled(),
        sample_shape=(2, 21),
        time=flow(time_scale=1.0),
        conditions={"label": torch.arange(5)},
        unconditional={"label": torch.tensor([5])},
    )
"""


def test_a_function_of_the_users_code_is_deployed_with_guidance(tmp_path: Path) -> None:
    (tmp_path / "labelled.py").write_text(LABELLED)
    words = (
        f"--board host --model {tmp_path / 'labelled.py'}:build --virtual --sampler flow-euler --steps 4 --guidance 2"
    )
    words += f" --guidance 2 --condition label=3 --generate 1 --generate 2 --out {tmp_path / 'out'}"
    command = [sys.executable, "-m", "edge.deploy", *words.split(), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["model"] == "Labelled"
    assert [job["steps"] for job in report["jobs"]] == [4, 4]
    assert all(job["psnr_oracle_db"] is None or job["psnr_oracle_db"] > 50 for job in report["jobs"])
