"""The supervisor as the bridge calls it: real store, real child engine, an outbox that remembers."""

from __future__ import annotations

import os
import select
import signal
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from boards import Board, load_board
from edge.device.errors import StorageError
from edge.device.recovery import MAX_STARTS
from edge.device.supervisor import QUEUE_LIMIT, Supervisor
from edge.device.surroundings import this_machine
from firmware_bridge.errors import DeviceRefused
from firmware_bridge.jobs import Failure, JobRequest, Preview, Progress, Result
from firmware_bridge.wire.messages import FailureCode, RefusalCode

from .conftest import bring, toy_bundle

if TYPE_CHECKING:
    from .conftest import ToyBundle


class Outbox:
    """Remembers what the host is told; ``has_room`` and ``is_connected`` may be switched off."""

    def __init__(self) -> None:
        self.has_room = True
        self.is_connected = True
        self.stages: list[tuple[str, int, int]] = []
        self.activations: dict[int, str | tuple[int, str]] = {}
        self.steps: list[Progress] = []
        self.previews: list[Preview] = []
        self.ends: dict[str, Result | Failure] = {}

    def room(self) -> int:
        return 8 if self.has_room else 0

    def connected(self) -> bool:
        return self.is_connected

    def activation_progress(self, _request: int, stage: str, done: int, of: int) -> None:
        self.stages.append((stage, done, of))

    def activated(self, request: int, bundle_id: str) -> None:
        self.activations[request] = bundle_id

    def refuse(self, request: int, code: int, message: str) -> None:
        self.activations[request] = (code, message)

    def progress(self, progress: Progress) -> bool:
        if self.has_room:
            self.steps.append(progress)
        return self.has_room

    def preview(self, preview: Preview) -> bool:
        self.previews.append(preview)
        return True

    def result(self, result: Result) -> None:
        assert result.job_id not in self.ends
        self.ends[result.job_id] = result

    def failure(self, failure: Failure) -> None:
        assert failure.job_id not in self.ends
        self.ends[failure.job_id] = failure

    def log(self, _text: str) -> None:
        return


class Device:
    """A supervisor with a host at the other end, and what a host does."""

    def __init__(self, root: Path, board: Board, **options: Any) -> None:  # noqa: ANN401  the supervisor's
        self.supervisor = Supervisor(board, this_machine(root, board), **options)
        self.supervisor.start()
        self.outbox = Outbox()
        self.supervisor.attach(self.outbox)
        self.supervisor.session_opened()
        self._request = 0

    def upload(self, bundle: ToyBundle) -> None:
        for data in bundle.blobs.values():
            bring(self.supervisor.store, data)

    def activate(self, bundle_id: str, release: bytes = b"") -> str | tuple[int, str]:
        self._request += 1
        self.supervisor.activate(self._request, bundle_id, release)
        self.until(lambda: self._request in self.outbox.activations)
        return self.outbox.activations[self._request]

    def deploy(self, bundle: ToyBundle) -> None:
        self.upload(bundle)
        assert self.activate(bundle.bundle_id) == bundle.bundle_id

    def run(self, *jobs: JobRequest) -> list[Result | Failure]:
        for job in jobs:
            self.supervisor.submit(job)
        self.until(lambda: all(job.job_id in self.outbox.ends for job in jobs))
        return [self.outbox.ends[job.job_id] for job in jobs]

    def until(self, done: Callable[[], bool], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        self.supervisor.advance(time.monotonic())
        while not done():
            assert time.monotonic() < deadline, "the device did not get there in time"
            select.select(self.supervisor.wake_files(), [], [], 0.2)
            self.supervisor.advance(time.monotonic())


@pytest.fixture
def board() -> Board:
    return load_board("host")


@pytest.fixture
def start(tmp_path: Path, board: Board) -> Iterator[Callable[..., Device]]:
    """Starts devices, one after the other, on the same folder."""
    started: list[Device] = []

    def starter(*, is_closed: bool = False, **options: float) -> Device:
        if started and not is_closed:
            started[-1].supervisor.close()
        started.append(Device(tmp_path / "root", board, **options))
        return started[-1]

    yield starter
    if started:
        started[-1].supervisor.close()


Starter = Callable[..., Device]


def generate(job_id: str, seed: int = 1) -> JobRequest:
    return JobRequest(job_id, "generate", {"seed": seed})


def inspect(job_id: str, payload: bytes, dtype: str = "float32", start: int = 2) -> JobRequest:
    return JobRequest(job_id, "inspect", {"seed": 1, "start": start, "dtype": dtype}, payload)


def image_of(end: Result | Failure) -> bytes:
    assert isinstance(end, Result), end
    return end.payload


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


def flip(tmp_path: Path, bundle: ToyBundle) -> None:
    """Damage the bundle's program where it lies."""
    digest = next(digest for digest, data in bundle.blobs.items() if data.startswith(b'{"steps"'))
    path = tmp_path / "root" / "blobs" / digest
    data = bytearray(path.read_bytes())
    data[3] ^= 0x10
    path.write_bytes(data)


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


def test_only_one_supervisor_has_the_folder(start: Starter, tmp_path: Path, board: Board) -> None:
    start()
    with pytest.raises(StorageError, match="another supervisor"):
        this_machine(tmp_path / "root", board)


def test_a_device_keeps_its_id_and_changes_its_boot_id(start: Starter) -> None:
    first = start().supervisor.describe()
    second = start().supervisor.describe()
    assert first.device_id == second.device_id
    assert first.boot_id != second.boot_id
