"""The supervisor as the bridge calls it: jobs from submission to their ends."""

from __future__ import annotations

import os
import select
import signal
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest

from boards import Board
from edge.device.errors import StorageError
from edge.device.supervisor import QUEUE_LIMIT
from edge.device.surroundings import this_machine
from firmware_bridge.errors import DeviceRefused
from firmware_bridge.jobs import Failure, JobRequest, Result
from firmware_bridge.wire.messages import FailureCode, RefusalCode

from .conftest import toy_bundle
from .supervised import Starter, generate, image_of, inspect


def test_from_upload_to_results(start: Starter, tmp_path: Path) -> None:
    device = start()
    assert device.supervisor.describe().active_bundle is None
    bundle = toy_bundle(tmp_path)
    device.deploy(bundle)
    stages = device.outbox.stages
    assert [stages[0], stages[-1]] == [("verify", 1, 4), ("self-test", 3, 3)]
    about = device.supervisor.describe()
    assert (about.active_bundle, about.board, about.versions["executorch"]) == (bundle.bundle_id, "host", "1.5.1")

    made, seen = device.run(generate("a"), inspect("b", bytes(16), "uint8"))
    assert isinstance(made, Result)
    assert isinstance(seen, Result)
    assert len(made.payload) == 64
    assert made.meta["map"] is False
    assert made.meta["steps"] == 5
    assert made.meta["passes"] == 50
    assert len(seen.payload) == 64 + 64
    assert (seen.meta["map"], seen.meta["score"], seen.meta["shape"]) == (True, 0.25, [1, 4, 4])
    assert (seen.meta["novelty"], seen.meta["novel"]) == (1.5, True)
    assert (made.meta["novelty"], made.meta["novel"]) == (None, None)
    assert [(p.step, p.of) for p in device.outbox.steps if p.job_id == "a"] == [(n, 5) for n in range(1, 6)]
    assert [(p.step, p.of) for p in device.outbox.steps if p.job_id == "b"] == [(n, 3) for n in range(1, 4)]


def test_interleaved_jobs_give_the_bits_that_each_gives_alone(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path))
    together = [image_of(end) for end in device.run(generate("a", 1), generate("b", 2))]
    alone = [image_of(device.run(job)[0]) for job in (generate("c", 1), generate("d", 2))]
    assert together == alone
    assert alone[0] != alone[1]


def test_a_job_before_any_bundle_is_refused_and_may_come_again(start: Starter, tmp_path: Path) -> None:
    device = start()
    with pytest.raises(DeviceRefused) as caught:
        device.supervisor.submit(generate("a"))
    assert caught.value.code == RefusalCode.NO_ACTIVE_BUNDLE
    device.deploy(toy_bundle(tmp_path))
    assert image_of(device.run(generate("a"))[0])


@pytest.mark.parametrize(
    ("job", "code", "words"),
    [
        (JobRequest("x", "paint", {}), RefusalCode.UNSUPPORTED, "unknown kind 'paint'"),
        (JobRequest("x", "generate", {}), RefusalCode.BAD_INPUT, "parameters missing: seed"),
        (JobRequest("x", "generate", {"seed": 1, "sed": 1}), RefusalCode.BAD_INPUT, "parameters unknown: sed"),
        (JobRequest("x", "generate", {"seed": -1}), RefusalCode.BAD_INPUT, "seed -1"),
        (JobRequest("x", "generate", {"seed": True}), RefusalCode.BAD_INPUT, "seed True"),
        (JobRequest("x", "generate", {"seed": 1}, b"x"), RefusalCode.BAD_INPUT, "an image where none belongs"),
        (inspect("x", bytes(63)), RefusalCode.BAD_INPUT, "1x4x4 float32, 64 bytes"),
        (inspect("x", bytes(64), "uint8"), RefusalCode.BAD_INPUT, "1x4x4 uint8, 16 bytes"),
        (inspect("x", bytes(64), "int4"), RefusalCode.BAD_INPUT, "allowed: float32, uint8"),
        (inspect("x", bytes(64), start=5), RefusalCode.BAD_INPUT, "an integer from 0 to 4"),
    ],
)
def test_bad_jobs_are_refused_and_the_next_one_runs(
    start: Starter, tmp_path: Path, job: JobRequest, code: int, words: str
) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path))
    with pytest.raises(DeviceRefused) as caught:
        device.supervisor.submit(job)
    assert caught.value.code == code
    assert words in str(caught.value)
    assert image_of(device.run(generate("next"))[0])


def test_nan_in_the_image_fails_the_job_and_the_next_one_runs(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path))
    image = struct.pack("<16f", *[0.0] * 15, float("nan"))
    bad, good = device.run(inspect("bad", image), generate("good"))
    assert isinstance(bad, Failure)
    assert bad.code == FailureCode.BAD_INPUT
    assert "NaN" in bad.message
    assert image_of(good)


def test_an_engine_killed_in_mid_job_fails_it_and_the_next_one_runs(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path, steps=2000, slow=0.002))
    device.supervisor.submit(generate("victim"))
    device.until(lambda: len(device.outbox.steps) > 3)
    engine = device.supervisor._scheduler._engine
    assert engine is not None
    os.kill(engine.pid, signal.SIGKILL)
    device.until(lambda: "victim" in device.outbox.ends)
    end = device.outbox.ends["victim"]
    assert isinstance(end, Failure)
    assert end.code == FailureCode.ENGINE_DIED
    assert "SIGKILL" in end.message
    assert image_of(device.run(inspect("next", bytes(64), start=1999))[0])


def test_cancelling(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path, steps=2000, slow=0.002))
    device.supervisor.submit(generate("a"))
    device.until(lambda: len(device.outbox.steps) > 3)
    device.supervisor.cancel("a")
    device.supervisor.cancel("unknown")
    device.until(lambda: "a" in device.outbox.ends)
    end = device.outbox.ends["a"]
    assert isinstance(end, Failure)
    assert end.code == FailureCode.CANCELLED
    assert image_of(device.run(inspect("next", bytes(64), start=1999))[0])


def test_a_job_for_another_bundle_is_refused(start: Starter, tmp_path: Path) -> None:
    device = start()
    bundle = toy_bundle(tmp_path)
    device.deploy(bundle)
    with pytest.raises(DeviceRefused, match=f"meant for bundle abababababab, {bundle.bundle_id[:12]} is active") as no:
        device.supervisor.submit(replace(generate("a"), bundle="ab" * 32))
    assert no.value.code == RefusalCode.OTHER_BUNDLE
    assert image_of(device.run(replace(generate("a"), bundle=bundle.bundle_id))[0])


def test_credits_are_the_jobs_that_it_takes_before_it_is_busy(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path, steps=2000, slow=0.002))
    for number in range(3):
        device.supervisor.submit(generate(f"job-{number}"))
    assert device.supervisor.describe().credits == QUEUE_LIMIT - 3


def test_previews_of_a_job_that_wants_them(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path, steps=7, slow=0.2))
    device.run(replace(generate("seen"), preview_every=3), generate("unseen"))
    seen = device.outbox.previews
    assert [(each.job_id, each.step, each.of, each.shape) for each in seen] == [
        ("seen", 3, 7, (1, 4, 4)),
        ("seen", 6, 7, (1, 4, 4)),
    ]
    assert all(len(each.pixels) == 16 and len(set(each.pixels)) > 1 for each in seen)


def test_previews_are_not_too_frequent(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path, steps=100, slow=0.001))
    device.run(replace(generate("a"), preview_every=1))
    assert len(device.outbox.previews) <= 2


def test_an_engine_that_cannot_show_its_image_runs_the_job_all_the_same(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path, misbehave={"at": "look", "how": "refuse"}))
    assert image_of(device.run(replace(generate("a"), preview_every=1))[0])
    assert not device.outbox.previews


def test_a_job_submitted_twice_runs_once(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path))
    device.supervisor.submit(generate("a"))
    device.supervisor.submit(generate("a"))
    device.until(lambda: "a" in device.outbox.ends)
    first = device.outbox.ends.pop("a")
    steps = len(device.outbox.steps)
    (again,) = device.run(generate("a"))
    assert again == first
    assert len(device.outbox.steps) == steps == 5
    with pytest.raises(DeviceRefused, match="belongs to another job"):
        device.supervisor.submit(generate("a", seed=2))


def test_the_queue_is_bounded(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path, steps=2000, slow=0.002))
    names = [f"job-{n}" for n in range(QUEUE_LIMIT)]
    for name in names:
        device.supervisor.submit(generate(name))
    with pytest.raises(DeviceRefused) as caught:
        device.supervisor.submit(generate("one too many"))
    assert caught.value.code == RefusalCode.BUSY
    for name in names:
        device.supervisor.cancel(name)
    device.until(lambda: len(device.outbox.ends) == QUEUE_LIMIT)
    assert image_of(device.run(inspect("one too many", bytes(64), start=1999))[0])


def test_a_slow_line_loses_progress_but_never_the_last_step(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path))
    device.outbox.has_room = False
    device.supervisor.submit(generate("a"))
    scheduler = device.supervisor._scheduler
    deadline = time.monotonic() + 20
    while device.supervisor._journal.outcome("a") is None and time.monotonic() < deadline:
        select.select(device.supervisor.wake_files(), [], [], 0.1)
        device.supervisor.advance(0)
    assert scheduler.is_alive()
    assert device.outbox.ends == {}
    device.outbox.has_room = True
    device.until(lambda: "a" in device.outbox.ends)
    assert [p.step for p in device.outbox.steps][-1] == 5


def test_jobs_go_on_while_no_host_is_there(start: Starter, tmp_path: Path) -> None:
    device = start()
    device.deploy(toy_bundle(tmp_path))
    device.supervisor.submit(generate("a"))
    device.supervisor.session_closed()
    device.outbox.is_connected = False
    device.until(lambda: not device.supervisor._under_way)
    assert device.outbox.ends == {}
    device.outbox.is_connected = True
    device.supervisor.session_opened()
    assert image_of(device.run(generate("a"))[0])


def test_only_one_supervisor_has_the_folder(start: Starter, tmp_path: Path, host_board: Board) -> None:
    start()
    with pytest.raises(StorageError, match="another supervisor"):
        this_machine(tmp_path / "root", host_board)


def test_a_device_keeps_its_id_and_changes_its_boot_id(start: Starter) -> None:
    first = start().supervisor.describe()
    second = start().supervisor.describe()
    assert first.device_id == second.device_id
    assert first.boot_id != second.boot_id
