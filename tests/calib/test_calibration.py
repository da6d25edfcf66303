"""Calibration: what it observes, what it chooses, that it is deterministic, and its storage."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from calib.calibration import TIMESTEP_ONLY, Calibration, CalibrationConfig, calibrate, calibration_key
from calib.errors import CalibrationError, PlanError
from calib.models import PretrainedModel, load_model
from calib.observe import LayerObservation, bin_sizes, observe
from calib.plan import coarse_exponent
from calib.samplers import Sampler, build_sampler
from calib.scales import choose_exponents, lattice_step
from calib.storage import load_calibration, save_calibration
from calib.support import survey

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = CalibrationConfig(seeds=2, residual_every=2)


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> PretrainedModel:
    return load_model(tiny_model_folder)


@pytest.fixture(scope="module")
def sampler(model: PretrainedModel) -> Sampler:
    return build_sampler("ddim", 5, model.schedule)


@pytest.fixture(scope="module")
def calibration(model: PretrainedModel, sampler: Sampler) -> Calibration:
    return calibrate(model, sampler, CONFIG)


def assert_equal(a: Calibration, b: Calibration) -> None:
    for field in dataclasses.fields(Calibration):
        if field.name != "layers":
            assert getattr(a, field.name) == getattr(b, field.name), field.name
    for each in (a, b):
        assert list(each.layers) == list(each.plan.layers) == list(each.ranges)
    assert list(a.layers) == list(b.layers)
    for name, layer in a.layers.items():
        for field in dataclasses.fields(layer):
            mine, other = getattr(layer, field.name), getattr(b.layers[name], field.name)
            assert torch.equal(mine, other) if isinstance(mine, torch.Tensor) else mine == other


def test_it_is_deterministic(model: PretrainedModel, sampler: Sampler, calibration: Calibration) -> None:
    assert_equal(calibrate(model, sampler, CONFIG), calibration)


def test_timestep_layers_stay_in_float_and_all_others_are_modulated(calibration: Calibration) -> None:
    assert set(calibration.float_layers.values()) == {TIMESTEP_ONLY}
    assert all("time_emb" in name for name in calibration.float_layers)
    assert "unet.time_embedding.linear_1" in calibration.float_layers
    assert not any("time_emb" in name for name in calibration.layers)
    assert {"unet.conv_in", "unet.conv_out", "unet.mid_block.attentions.0.to_q"} <= calibration.layers.keys()
    assert calibration.plan.layers.keys() == calibration.layers.keys() == calibration.ranges.keys()


def test_the_lattice_spans_the_observed_range_with_headroom(calibration: Calibration) -> None:
    for name, layer in calibration.layers.items():
        largest = max(-calibration.ranges[name][0], calibration.ranges[name][1])
        reach = float(layer.step) * (2 ** (layer.lattice_bits - 1) - 1)
        assert reach == pytest.approx(largest * CONFIG.range_headroom, rel=1e-5)


def test_the_smallest_layers_are_exact_at_every_step(model: PretrainedModel, sampler: Sampler) -> None:
    observations = observe(model, sampler, survey(model).modulated, range(2))
    assert observations["unet.conv_in"].macs == 16 * 16 * 16 * 9
    assert observations["unet.mid_block.attentions.0.to_q"].macs == 8 * 8 * 32 * 32
    for share, exact in ((0.0, 0), (1.0, 1)):
        plan = calibrate(model, sampler, dataclasses.replace(CONFIG, exact_share=share)).plan
        for layer in plan.layers.values():
            assert {len(row.exponents) for row in layer.rows} == {1 + exact}


def test_every_setting_changes_the_key(model: PretrainedModel, sampler: Sampler, calibration: Calibration) -> None:
    assert calibration.content_hash == calibration_key(model, sampler, CONFIG)
    others = [
        calibration_key(dataclasses.replace(model, content_hash="0"), sampler, CONFIG),
        calibration_key(model, build_sampler("dpmpp2m", 5, model.schedule), CONFIG),
        calibration_key(model, build_sampler("ddim", 6, model.schedule), CONFIG),
        calibration_key(model, sampler, dataclasses.replace(CONFIG, seeds=3)),
        calibration_key(model, sampler, dataclasses.replace(CONFIG, first_seed=1)),
        calibration_key(model, sampler, dataclasses.replace(CONFIG, lattice_bits=12)),
        calibration_key(model, sampler, dataclasses.replace(CONFIG, exact_share=0.1)),
        calibration_key(model, sampler, dataclasses.replace(CONFIG, range_headroom=1.5)),
        calibration_key(model, sampler, dataclasses.replace(CONFIG, residual_every=None)),
    ]
    assert len({calibration.content_hash, *others}) == len(others) + 1


@pytest.mark.parametrize(
    "setting",
    [
        {"seeds": 1},
        {"first_seed": -1},
        {"lattice_bits": 17},
        {"lattice_bits": 7},
        {"range_headroom": 0.9},
        {"exact_share": -0.1},
        {"residual_every": -1},
        {"batch": 1},
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(CalibrationError, match=next(iter(setting))):
        CalibrationConfig(**setting)


def test_progress_counts_to_the_end(model: PretrainedModel, sampler: Sampler) -> None:
    seen: list[tuple[int, int]] = []
    observe(
        model,
        sampler,
        ["unet.conv_in"],
        range(3),
        batch=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(i, 10) for i in range(1, 11)]


def test_observation_leaves_no_hook_behind(model: PretrainedModel, calibration: Calibration) -> None:
    assert calibration.layers
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.denoiser.modules())


def test_an_observation_holds_ranges_and_changes() -> None:
    observation = LayerObservation.empty(3)
    first = torch.tensor([[1.0, -2.0], [1.0, 0.5]])
    observation.see(0, first)
    observation.see(1, first + torch.tensor([[0.25, 0.0], [-1.0, 3.0]]))
    assert (observation.lowest, observation.highest, observation.largest) == (-2.0, 3.5, 3.5)
    assert observation.depends_on_sample
    assert observation.changes.sum(1).tolist() == [0, 4, 0]
    sizes = bin_sizes()
    seen = sizes[observation.changes[1].nonzero().flatten()]
    torch.testing.assert_close(seen[1:], torch.tensor([0.25, 1.0, 3.0]).double(), rtol=0.07, atol=0)
    observation.forget_previous()
    observation.see(2, first)
    assert observation.changes[2].sum() == 0


@pytest.mark.parametrize("size", [0.003, 0.1, 1.0, 2.0])
def test_exponents_cover_the_changes_that_were_seen(size: float) -> None:
    observation = LayerObservation.empty(2)
    x = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    change = size * torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
    observation.see(0, x)
    observation.see(1, x + change)
    step = lattice_step(observation.largest, 13, 1.0)
    first, second = choose_exponents(observation, step, 13)
    assert first == coarse_exponent(13)
    units = float(change.max() / step)
    assert 127 * 2**second >= units * 0.9 or second == coarse_exponent(13)
    assert second == 0 or 127 * 2 ** (second - 1) < units * 1.15


def test_an_input_that_never_moves_gets_a_usable_step() -> None:
    assert float(lattice_step(0.0, 13, 1.1)) > 0
    assert torch.isfinite(lattice_step(0.0, 13, 1.1).reciprocal())
    with pytest.raises(CalibrationError):
        lattice_step(float("inf"), 13, 1.1)


def test_storage_gives_back_what_it_got(calibration: Calibration, tmp_path: Path) -> None:
    save_calibration(calibration, tmp_path / "c")
    assert_equal(load_calibration(tmp_path / "c"), calibration)
    assert sorted(entry.name for entry in (tmp_path / "c").iterdir()) == [
        "manifest.json",
        "plan.json",
        "tensors.safetensors",
    ]
    save_calibration(calibration, tmp_path / "c")
    assert_equal(load_calibration(tmp_path / "c"), calibration)


def rehash(folder: Path, name: str) -> None:
    """Make the manifest agree with a changed file, so that the check behind the hash is reached."""
    import hashlib

    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def stored(calibration: Calibration, tmp_path: Path) -> Path:
    save_calibration(calibration, tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["plan.json", "tensors.safetensors"])
def test_tampered_and_missing_files_are_refused(stored: Path, name: str) -> None:
    data = bytearray((stored / name).read_bytes())
    data[len(data) // 2] ^= 1
    (stored / name).write_bytes(data)
    with pytest.raises(CalibrationError, match="hash"):
        load_calibration(stored)
    (stored / name).unlink()
    with pytest.raises(CalibrationError, match="missing"):
        load_calibration(stored)


def test_a_missing_or_garbled_manifest_is_refused(stored: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="no calibration"):
        load_calibration(tmp_path / "nowhere")
    (stored / "manifest.json").write_text("{")
    with pytest.raises(CalibrationError, match="not JSON"):
        load_calibration(stored)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"format": None},
        {"files": None},
        {"config": {"colour": 1}},
        {"config": {"seeds": 0}},
        {"layers": {}},
        {"layers": None},
        {"float_layers": 3},
    ],
)
def test_a_manifest_of_another_form_is_refused(stored: Path, change: dict[str, object]) -> None:
    manifest = json.loads((stored / "manifest.json").read_text())
    (stored / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(CalibrationError):
        load_calibration(stored)


def test_a_missing_or_retyped_tensor_is_refused(stored: Path, calibration: Calibration) -> None:
    path = stored / "tensors.safetensors"
    name = next(iter(calibration.layers))
    tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
    save_file({key: tensor for key, tensor in tensors.items() if key != f"{name}/bias"}, path)
    rehash(stored, path.name)
    with pytest.raises(CalibrationError, match=r"bias is missing"):
        load_calibration(stored)
    save_file(tensors | {f"{name}/main": tensors[f"{name}/main"].float()}, path)
    rehash(stored, path.name)
    with pytest.raises(CalibrationError, match="float32"):
        load_calibration(stored)
    path.write_bytes(b"short")
    rehash(stored, path.name)
    with pytest.raises(CalibrationError, match="damaged"):
        load_calibration(stored)


def test_a_plan_of_another_format_is_refused(stored: Path) -> None:
    plan = json.loads((stored / "plan.json").read_text())
    (stored / "plan.json").write_text(json.dumps(plan | {"format": 99}))
    rehash(stored, "plan.json")
    with pytest.raises(PlanError, match="99"):
        load_calibration(stored)
