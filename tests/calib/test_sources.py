"""Models named by a function, and what is refused before any of it runs long."""

import sys
from pathlib import Path

import pytest
import torch

from calib import read_model
from calib.errors import ModelError

CODE = """
import torch
from torch import nn

from calib import adapt
from {helper} import FACTOR


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(6, 6)

    def forward(self, x, t):
        return self.mix(x) * FACTOR


def build():
    torch.manual_seed(0)
    return adapt(Net(), sample_shape=(6,))


def other():
    return 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a user's with one beside it; names that no other test imports."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own_helper.py").write_text("FACTOR = 2.0")
    (tmp_path / "own_net.py").write_text(CODE.format(helper="own_helper"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "own_net.py"
    for name in ("own_helper", "own_net", "modiff_model_own_net"):
        sys.modules.pop(name, None)


def test_a_file_and_an_importable_module_give_the_same_model(own: Path) -> None:
    by_file, by_module = read_model(f"{own}:build"), read_model("own_net:build")
    assert by_file.name == by_module.name == "Net"
    assert by_file.content_hash == by_module.content_hash
    x = torch.randn(1, 1, 1, 6)
    assert torch.equal(by_file(x, torch.tensor(3)), by_module(x, torch.tensor(3)))


def test_changed_code_is_another_model_though_its_weights_are_the_same(own: Path) -> None:
    before = read_model(f"{own}:build").content_hash
    own.write_text(own.read_text().replace("* FACTOR", "/ FACTOR"))
    assert read_model(f"{own}:build").content_hash != before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{own}:bild", "no function 'bild', only build, other"),
        ("{own}:other", "gives a int"),
        ("no_such.py:build", "no such file"),
        ("no.such.module:build", "no such module"),
        ("no-such-folder", "no such folder"),
    ],
)
def test_what_gives_no_model_is_refused(own: Path, source: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as refused:
        read_model(source.format(own=own))
    assert refused.value.mend


def test_what_is_wrong_in_the_users_code_is_shown_as_it_is(own: Path) -> None:
    (own.parent / "own_helper.py").write_text("import no_such_package_at_all")
    with pytest.raises(ModuleNotFoundError, match="no_such_package_at_all"):
        read_model("own_net:build")


def test_a_missing_model_needs_no_long_import_to_be_refused() -> None:
    from edge.deploy.options import DeployOptions
    from edge.errors import NoModelError

    def options(model: str) -> DeployOptions:
        return DeployOptions("host", model, None, False, "ddim", 10, (5,), (), 0.8, Path("out"), Path("cache"))

    options("some.module:build").check()
    for model in ("no_such.py:build", "no-such-folder"):
        with pytest.raises(NoModelError):
            options(model).check()
