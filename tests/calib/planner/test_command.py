"""``python -m calib plan`` on the tiny model: what it prints and stores, what it remembers, what it refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from calib.__main__ import app
from calib.errors import CalibrationError
from calib.planner.candidate import full_steps, passes_of
from calib.planner.command import parse_bytes
from calib.storage import load_calibration

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 5


class Command:
    """Runs the command on the tiny model with a folder that remembers."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.options = ["plan", "--model", str(model), "--sampler", "ddim", "--steps", str(STEPS)]
        self.options += ["--calibration-seeds", "2", "--resume", str(folder / "kept")]

    def text(self, *options: str) -> str:
        result = CliRunner().invoke(app, [*self.options, *options], catch_exceptions=True)
        if isinstance(result.exception, CalibrationError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *options: str) -> Any:  # noqa: ANN401 - any JSON value
        return json.loads(self.text("--json", *options))


@pytest.fixture(scope="module")
def command(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    return Command(tiny_model_folder, tmp_path_factory.mktemp("plan"))


def chosen(document: dict[str, Any]) -> dict[str, Any]:
    (row,) = (row for row in document["front"] if row["chosen"])
    assert sum(each["chosen"] for each in document["candidates"]) == 1
    return dict(row)


def test_it_stores_the_plan_that_it_chose(command: Command, tmp_path: Path) -> None:
    document = command.json("--out", str(tmp_path))
    best, front = chosen(document), document["front"]
    assert (document["steps"], document["sampler"]) == (STEPS, "ddim")
    assert len(document["candidates"]) >= len(front) >= 2
    assert [row["cost"] for row in front] == sorted(row["cost"] for row in front)
    assert best["psnr_pooled"] == max(row["psnr_pooled"] for row in front)
    assert all(row["psnr_min"] <= row["psnr_pooled"] <= row["psnr"] + 1e-9 for row in front)
    stored = load_calibration(tmp_path)
    assert stored.plan.steps == STEPS
    assert len(stored.plan.points) == best["points"]
    ones = dict.fromkeys(stored.plan.layers, 1)
    assert full_steps(stored.plan, ones) == sum(sum(passes_of(stored.plan, name)) for name in stored.plan.layers) / len(
        ones
    )


def test_targets_choose_from_what_is_remembered(command: Command, tmp_path: Path) -> None:
    before = command.json()
    cheap = chosen(command.json("--cost", "0.65"))
    assert cheap["cost"] <= 0.65
    worst = min(row["psnr"] for row in before["front"])
    enough = command.json("--psnr", str(worst - 1), "--out", str(tmp_path))
    assert chosen(enough)["cost"] == min(row["cost"] for row in before["front"])
    assert enough["candidates"] == [
        {**row, "chosen": enough["candidates"][i]["chosen"]} for i, row in enumerate(before["candidates"])
    ]
    assert load_calibration(tmp_path).plan.points
    assert "chosen" in command.text("--cost", "0.65")


def test_targets_that_no_plan_reaches_say_what_there_is(command: Command) -> None:
    with pytest.raises(CalibrationError, match=r"no plan reaches 300\.0 dB") as refused:
        command.text("--psnr", "300")
    assert "the best has" in str(refused.value.mend)
    with pytest.raises(CalibrationError, match=r"no plan costs at most 0\.0.*the cheapest"):
        command.text("--cost", "0.01")
    with pytest.raises(CalibrationError, match="is no size"):
        command.text("--state-memory", "much")


def test_a_plan_keeps_to_its_state_memory(command: Command) -> None:
    least = min(row["state_bytes"] for row in command.json()["candidates"])
    limited = command.json("--state-memory", f"{least // 2}B")
    assert limited["candidates"]
    assert all(row["state_bytes"] <= least // 2 for row in limited["candidates"])


@pytest.mark.parametrize(("text", "size"), [("16MiB", 2**24), ("1.5 KiB", 1536), ("7", 7), ("2GiB", 2**31)])
def test_sizes_have_binary_units(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_a_calibration_for_something_else_is_refused(command: Command, tmp_path: Path) -> None:
    command.text("--out", str(tmp_path))
    with pytest.raises(CalibrationError, match="made for ddim with 5 evaluations"):
        command.text("--calibration", str(tmp_path), "--steps", "4")
