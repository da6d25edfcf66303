"""What becomes of jobs and outcomes when the device starts anew."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from edge.device.recovery import MAX_STARTS
from firmware_bridge.jobs import Failure, Result
from firmware_bridge.wire.messages import FailureCode

from .conftest import toy_bundle
from .supervised import Starter, flip, generate, image_of


def test_an_outcome_outlives_the_supervisor_until_it_is_taken(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path))
    (first,) = device.run(generate("a"))
    device = start()
    assert device.run(generate("a")) == [first]
    device.supervisor.forget("a")
    device.outbox.ends.clear()
    (gone,) = device.run(generate("a"))
    assert isinstance(gone, Failure)
    assert "no longer kept" in gone.message


def test_a_job_that_a_restart_interrupts_is_run_again_and_says_so(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path, steps=60, slow=0.01))
    (alone,) = device.run(generate("alone"))
    device.supervisor.submit(generate("a"))
    device.until(lambda: len(device.outbox.steps) > 63)
    device = start()
    (end,) = device.run(generate("a"))
    assert image_of(end) == image_of(alone)
    assert isinstance(end, Result)
    assert (end.meta["restarts"], end.meta["resumed_at"], end.meta["steps"]) == (1, None, 60)
    assert isinstance(alone, Result)
    assert "restarts" not in alone.meta


def test_a_long_job_goes_on_from_its_last_snapshot(start: Starter, tmp_path: Path) -> None:
    device = start(snapshot_seconds=4.0)
    device.deploy(toy_bundle(tmp_path, steps=60, slow=0.01, claims=10**9))
    (alone,) = device.run(generate("alone"))
    device.supervisor.submit(generate("a"))
    device.until(lambda: len(device.outbox.steps) > 70)
    device = start()
    (end,) = device.run(generate("a"))
    assert image_of(end) == image_of(alone)
    assert isinstance(end, Result)
    assert isinstance(end.meta["resumed_at"], int)
    assert end.meta["resumed_at"] >= 8
    assert end.meta["resumed_at"] % 4 == 0
    assert (end.meta["restarts"], end.meta["steps"]) == (1, 60)
    assert device.outbox.steps[0].step == end.meta["resumed_at"] + 1
    assert list((tmp_path / "root" / "snapshots").iterdir()) == []


def test_a_job_that_takes_the_device_down_each_time_is_given_up(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path, steps=2000, slow=0.01))
    device.supervisor.submit(generate("a"))
    for starts in range(1, MAX_STARTS + 1):
        device.until(lambda steps=device.outbox.steps: bool(steps))
        device = start()
        assert (device.supervisor._under_way == {"a"}) == (starts < MAX_STARTS)
    (end,) = device.run(generate("a"))
    assert isinstance(end, Failure)
    assert "went down 3 times" in end.message


def test_a_job_that_only_waited_is_not_blamed_when_the_device_goes_down(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path, slots=1, steps=200, slow=0.01))
    device.supervisor.submit(generate("guilty"))
    device.supervisor.submit(generate("innocent"))
    for _ in range(MAX_STARTS):
        device.until(lambda steps=device.outbox.steps: bool(steps))
        device = start()
    guilty, innocent = device.run(generate("guilty"), generate("innocent"))
    assert isinstance(guilty, Failure)
    assert isinstance(innocent, Result)
    assert "restarts" not in innocent.meta


def test_a_job_of_another_bundle_does_not_go_on(start: Starter, tmp_path: Path) -> None:
    device = start()
    old, new = toy_bundle(tmp_path, "old", steps=4), toy_bundle(tmp_path, "new", steps=2000, slow=0.01)
    device.deploy(old)
    device.run(generate("good"))
    device.deploy(new)
    device.supervisor.submit(generate("a"))
    device.until(lambda: any(step.job_id == "a" for step in device.outbox.steps))
    flip(tmp_path, new)
    device = start()
    assert device.supervisor.describe().active_bundle == old.bundle_id
    (end,) = device.run(generate("a"))
    assert isinstance(end, Failure)
    assert end.code == FailureCode.BUNDLE_CHANGED


def test_a_deadline_passes_while_the_device_is_down(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path, steps=2000, slow=0.01))
    job = replace(generate("a"), deadline=0.6)
    device.supervisor.submit(job)
    device.until(lambda: bool(device.outbox.steps))
    device.supervisor.close()
    time.sleep(0.7)
    device = start(is_closed=True)
    (end,) = device.run(job)
    assert isinstance(end, Failure)
    assert end.code == FailureCode.DEADLINE
    (late,) = device.run(replace(generate("b"), deadline=0.2))
    assert isinstance(late, Failure)
    assert late.code == FailureCode.DEADLINE
