"""Bundles that are activated, refused, or damaged on the disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from firmware_bridge.errors import DeviceRefused
from firmware_bridge.jobs import Failure, Result
from firmware_bridge.wire.messages import RefusalCode

from .conftest import toy_bundle
from .supervised import Starter, flip, generate, image_of

REFUSED = [
    ({"golden": bytes(64)}, RefusalCode.SELF_TEST, "dB against the golden output"),
    ({"board": "rpi5"}, RefusalCode.BUNDLE_INVALID, "made for board 'rpi5', this is 'host'"),
    ({"memory": {"peak_bytes": 2**31}}, RefusalCode.BUNDLE_INVALID, "peak memory: 2147483648 bytes"),
    ({"memory": {"state_bytes": 2**30}}, RefusalCode.BUNDLE_INVALID, "the states of 2 slots: 2147483648 bytes"),
    ({"state": 2**30}, RefusalCode.BUNDLE_INVALID, "the engine wants 1073741824 bytes a slot"),
    ({"promise": {"height": 5}, "golden": bytes(80)}, RefusalCode.BUNDLE_INVALID, "the manifest says"),
    ({"misbehave": {"at": "start", "how": "exit", "status": 4}}, RefusalCode.SELF_TEST, "an operator is missing"),
    ({"misbehave": {"at": "step 3", "how": "die"}}, RefusalCode.SELF_TEST, "SIGKILL"),
]


@pytest.mark.parametrize(("changes", "code", "words"), REFUSED, ids=[words for _, _, words in REFUSED])
def test_a_bundle_that_does_not_pass_leaves_the_old_one_active(
    start: Starter, tmp_path: Path, changes: dict[str, object], code: int, words: str
) -> None:
    device = start()
    old = toy_bundle(tmp_path, "old")
    device.deploy(old)
    (before,) = device.run(generate("before"))
    if "state" in changes:
        changes = {**changes, "golden": bytes(64)}
    bad = toy_bundle(tmp_path, "bad", **changes)  # type: ignore[arg-type]
    device.upload(bad)
    outcome = device.activate(bad.bundle_id)
    assert isinstance(outcome, tuple), outcome
    assert outcome[0] == code
    assert words in outcome[1]
    assert device.supervisor.describe().active_bundle == old.bundle_id
    (after,) = device.run(generate("after"))
    assert image_of(after) == image_of(before)
    device = start()
    assert device.supervisor.describe().active_bundle == old.bundle_id


def test_a_bundle_that_was_not_uploaded(start: Starter) -> None:
    device = start()
    with pytest.raises(DeviceRefused) as caught:
        device.supervisor.activate(1, "a" * 64, b"")
    assert caught.value.code == RefusalCode.UNKNOWN_BUNDLE


def test_a_bundle_with_a_file_missing(start: Starter, tmp_path: Path) -> None:
    device = start()
    bundle = toy_bundle(tmp_path)
    device.upload(replace(bundle, blobs={k: v for k, v in bundle.blobs.items() if v != bundle.golden}))
    outcome = device.activate(bundle.bundle_id)
    assert isinstance(outcome, tuple)
    assert outcome[0] == RefusalCode.BUNDLE_INVALID
    assert "golden.f32 missing" in outcome[1]
    device.deploy(bundle)


def test_a_manifest_that_contradicts_itself(start: Starter, tmp_path: Path) -> None:
    device = start()
    bundle = toy_bundle(tmp_path, golden=bytes(60))
    device.upload(bundle)
    with pytest.raises(DeviceRefused, match="golden output has not the size") as caught:
        device.supervisor.activate(1, bundle.bundle_id, b"")
    assert caught.value.code == RefusalCode.BUNDLE_INVALID


def test_a_blob_that_is_no_manifest(start: Starter, tmp_path: Path) -> None:
    device = start()
    bundle = toy_bundle(tmp_path)
    device.upload(bundle)
    golden = next(digest for digest, data in bundle.blobs.items() if data == bundle.golden)
    with pytest.raises(DeviceRefused) as caught:
        device.supervisor.activate(1, golden, b"")
    assert caught.value.code == RefusalCode.BUNDLE_INVALID


def test_a_byte_flipped_on_the_disk_before_activation(start: Starter, tmp_path: Path) -> None:
    device = start()
    bundle = toy_bundle(tmp_path)
    device.upload(bundle)
    flip(tmp_path, bundle)
    outcome = device.activate(bundle.bundle_id)
    assert isinstance(outcome, tuple)
    assert outcome[0] == RefusalCode.HASH_MISMATCH
    device.deploy(bundle)


def test_a_byte_flipped_in_the_active_bundle_falls_back_at_boot(start: Starter, tmp_path: Path) -> None:
    device = start()
    old, new = toy_bundle(tmp_path, "old", steps=4), toy_bundle(tmp_path, "new", steps=6)
    device.deploy(old)
    device.deploy(new)
    flip(tmp_path, new)
    device = start()
    assert device.supervisor.describe().active_bundle == old.bundle_id
    assert image_of(device.run(generate("a"))[0])
    device.deploy(new)
    assert device.supervisor.describe().active_bundle == new.bundle_id


def test_a_byte_flipped_under_a_running_device_fails_the_job_that_would_use_it(start: Starter, tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path)
    start().deploy(bundle)
    device = start()  # no engine runs yet
    flip(tmp_path, bundle)
    (end,) = device.run(generate("a"))
    assert isinstance(end, Failure)
    assert "program.pte" in end.message


def test_an_activation_waits_for_the_jobs_before_it(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path, "old", steps=50, slow=0.005))
    new = toy_bundle(tmp_path, "new", steps=4)
    device.upload(new)
    device.supervisor.submit(generate("before"))
    device.supervisor.activate(7, new.bundle_id, b"")
    with pytest.raises(DeviceRefused, match="another activation"):
        device.supervisor.activate(8, new.bundle_id, b"")
    with pytest.raises(DeviceRefused, match="an activation is under way"):
        device.supervisor.submit(generate("between"))
    device.until(lambda: 7 in device.outbox.activations)
    before = device.outbox.ends["before"]
    assert isinstance(before, Result)
    assert before.meta["steps"] == 50
    assert device.outbox.activations[7] == new.bundle_id
