"""Planning a small model: what the plans are, what they cost, and that planning is repeatable and resumable."""

from __future__ import annotations

import dataclasses
import json
import shutil
from typing import TYPE_CHECKING

import pytest
import torch

from boards.model import Cost
from calib.calibration import Calibration, CalibrationConfig, calibrate
from calib.errors import CalibrationError
from calib.evaluate.metrics import psnr
from calib.models import load_model
from calib.modulated import modulate
from calib.noise import noise_batch
from calib.planner import PlannerConfig, Planning, plan, planned
from calib.planner.candidate import front
from calib.samplers import Sampler, build_sampler
from calib.sampling import sample, start_generation
from calib.storage import load_calibration, save_calibration

if TYPE_CHECKING:
    from pathlib import Path

    from calib.adapters import PretrainedModel

CONFIG = PlannerConfig(budgets=(0.6, 1.3), sweep_seeds=2, probes=2, verification_seeds=2, reserves=(1.5,))
Case = tuple["PretrainedModel", Sampler, Calibration]


@pytest.fixture(scope="module")
def case(tiny_model_folder: Path) -> Case:
    model = load_model(tiny_model_folder)
    sampler = build_sampler("dpmpp2m", 10, model.schedule)
    return model, sampler, calibrate(model, sampler, CalibrationConfig(seeds=2, batch=2))


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journal")


@pytest.fixture(scope="module")
def found(case: Case, journal: Path) -> Planning:
    return plan(*case, CONFIG, journal=journal)


def test_the_front_holds_plans_with_reuse_and_without(found: Planning) -> None:
    assert found.regions
    assert len(found.candidates) >= 3
    assert all(any(other is each for other in found.candidates) for each in found.front)
    cheapest, best = found.choose(cost=0.6), found.choose()
    assert cheapest.cost <= 0.6
    assert cheapest.plan.points
    assert best.psnr >= cheapest.psnr > 20
    assert cheapest.cost == pytest.approx(cheapest.passes)
    assert found.choose(psnr=cheapest.psnr) is cheapest
    with pytest.raises(CalibrationError, match="no plan reaches"):
        found.choose(psnr=best.psnr + 1)
    with pytest.raises(CalibrationError, match=r"reaches .* dB and costs at most 0\.6"):
        found.choose(psnr=best.psnr + 1, cost=0.6)


def test_layers_in_a_reused_region_do_nothing(found: Planning) -> None:
    cheapest = found.choose(cost=0.6)
    idle = [i for i in range(10) if not cheapest.plan.layers["unet.mid_block.resnets.0.conv1"].rows[i].exponents]
    assert idle
    assert 0 not in idle
    assert all(cheapest.plan.layers["unet.conv_in"].rows[i].exponents for i in idle)
    assert all(not cheapest.plan.layers["unet.mid_block.resnets.0.conv1"].rows[i].residual_exponents for i in idle)


def test_what_is_printed_is_what_a_run_gives(case: Case, found: Planning, tmp_path: Path) -> None:
    model, sampler, calibration = case
    chosen = found.choose(cost=0.6)
    save_calibration(planned(calibration, chosen.plan), tmp_path)
    stored = load_calibration(tmp_path)
    assert stored.plan == chosen.plan
    assert stored.content_hash != calibration.content_hash
    x = start_generation(sampler, noise_batch(range(1_700_000, 1_700_002), model.sample_shape))
    modulated = modulate(model, stored)
    levels = psnr(sample(modulated, sampler, x), sample(model.denoiser, sampler, x))
    assert float(levels.mean()) == pytest.approx(chosen.psnr)
    macs = {name: layer.weights.main.numel() for name, layer in modulated.layers.items()}
    for name, layer in modulated.layers.items():
        rows = (layer.plan.anchor, *layer.plan.rows[1:])
        assert layer.counts.passes == sum(len(row.exponents) for row in rows), name
    assert set(macs) == set(chosen.plan.layers)
    for layer in modulated.layers.values():
        assert layer.state is not None
        for plane, lattice, accumulator in zip(
            layer.arithmetic.planes, layer.state.lattice, layer.state.accumulator, strict=True
        ):
            assert torch.equal(accumulator.double(), layer.operator(lattice.double(), plane.weight.double()))


def test_planning_again_recalls_and_gives_the_same(case: Case, found: Planning, journal: Path) -> None:
    (file,) = journal.glob("*.json")
    known = json.loads(file.read_text())["known"]
    assert len(known["measured"]) == len({each.plan.to_json() for each in found.candidates})
    ran: list[str] = []
    again = plan(*case, CONFIG, journal=journal, progress=lambda what, *_: ran.append(what))
    assert (again.candidates, again.front) == (found.candidates, found.front)
    assert ran == []


def test_a_plan_that_costs_more_than_the_uniform_one_does_all_that_it_does(case: Case, found: Planning) -> None:
    uniform, best = case[2].plan, found.candidates[-1].plan
    assert not best.points
    assert found.candidates[-1].cost > found.candidates[0].cost
    for name, layer in uniform.layers.items():
        for mine, theirs in zip(best.layers[name].rows, layer.rows, strict=True):
            assert len(mine.exponents) >= len(theirs.exponents), name
            assert len(mine.residual_exponents) >= len(theirs.residual_exponents), name
        assert best.layers[name].anchor == layer.anchor


def test_another_budget_takes_up_what_was_measured(case: Case, found: Planning, journal: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(journal, tmp_path / "copy")
    ran: list[str] = []
    config = dataclasses.replace(CONFIG, budgets=(0.9, 1.3))
    more = plan(*case, config, journal=folder, progress=lambda what, *_: ran.append(what))
    assert not any(what.startswith(("sensitivities", "uniform", "cost 1.30")) for what in ran)
    assert any(what.startswith("cost 0.90") for what in ran)
    assert len(list(folder.glob("*.json"))) == 1
    assert more.candidates[0] == found.candidates[0]


def test_a_planner_that_was_stopped_goes_on(case: Case, found: Planning, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(what: str, *_: int) -> None:
        if what.startswith("cost"):
            raise StoppedError

    with pytest.raises(StoppedError):
        plan(*case, CONFIG, journal=tmp_path, progress=stop)
    ran: list[str] = []
    assert plan(*case, CONFIG, journal=tmp_path, progress=lambda what, *_: ran.append(what)).front == found.front
    assert not any(what.startswith(("sensitivities", "uniform")) for what in ran)
    assert any(what.startswith("cost") for what in ran)


@pytest.mark.parametrize("ending", ["json", "safetensors"])
def test_a_damaged_journal_is_refused(case: Case, found: Planning, journal: Path, tmp_path: Path, ending: str) -> None:
    assert found
    folder = shutil.copytree(journal, tmp_path / "copy")
    (file,) = folder.glob(f"*.{ending}")
    whole = file.read_bytes()
    for position in (len(whole) // 2, 3):
        data = bytearray(whole)
        data[position] ^= 1
        file.write_bytes(data)
        with pytest.raises(CalibrationError, match="damaged"):
            plan(*case, CONFIG, journal=folder)


def test_one_spoilt_image_decides_between_plans(found: Planning) -> None:
    good = dataclasses.replace(found.choose(), levels=(63.9, 63.9), cost=1.0)
    spoilt = dataclasses.replace(good, levels=(70.0, 59.0), cost=0.9)
    both = dataclasses.replace(found, front=front([good, spoilt]))
    assert spoilt.psnr > good.psnr
    assert both.choose(cost=1.15) is good
    assert both.choose(psnr=60) is spoilt


def test_state_memory_and_board_cost_are_kept_to(case: Case, found: Planning) -> None:
    limit = min(each.state_bytes for each in found.candidates) // 2
    board = Cost(per_mac=0.1, per_input=1.0, per_prologue=0.0, per_output=1.0, per_call=100.0)
    config = dataclasses.replace(CONFIG, budgets=(1.3,), state_memory=limit)
    small = plan(*case, config, board_cost=board)
    assert all(each.state_bytes <= limit for each in small.candidates)
    assert all(each.cost <= 1.3 + 1e-9 for each in small.candidates)
    with pytest.raises(CalibrationError, match="state memory"):
        plan(*case, dataclasses.replace(config, budgets=(0.6,), state_memory=1))


def test_the_front_leaves_out_what_is_beaten(found: Planning) -> None:
    best = found.choose()
    worse = dataclasses.replace(best, levels=tuple(level - 1 for level in best.levels))
    dearer = dataclasses.replace(best, cost=best.cost + 1)
    assert front([worse, best, dearer]) == (best,)


@pytest.mark.parametrize(
    "options",
    [
        {"budgets": ()},
        {"budgets": (0.0,)},
        {"probes": 0},
        {"observed_seeds": 1},
        {"state_memory": 0},
        {"reserves": (-1.0,)},
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(CalibrationError):
        PlannerConfig(**options)
