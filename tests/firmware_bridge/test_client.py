"""The client and a device that is well: hello, activation, jobs."""

import hashlib
import os
import time
from dataclasses import replace

import pytest

from firmware_bridge.errors import (
    DeviceRefused,
    JobFailed,
    JobInputError,
    LocalProtocolError,
)
from firmware_bridge.jobs import Failure, JobRequest, Preview, Progress, Result, new_job_id
from firmware_bridge.testing.bench import Bench
from firmware_bridge.testing.device import MemoryDevice
from firmware_bridge.transfer import CAPABILITIES
from firmware_bridge.wire.messages import FailureCode, RefusalCode

from .client_bench import PausedDevice, blob, echo, start


def test_the_device_says_who_it_is(bench: Bench) -> None:
    device = start(bench)
    with bench.client() as client:
        assert client.info == replace(device.describe(), capabilities=CAPABILITIES)
        device.active = "ab" * 32
        assert client.info.active_bundle is None
        assert client.refresh().active_bundle == "ab" * 32
        assert client.info.active_bundle == "ab" * 32


def test_activation(bench: Bench) -> None:
    device = start(bench)
    good, bad = blob(1000), (hashlib.sha256(b"bad").hexdigest(), b"bad")
    stages = []
    with bench.client() as client:
        client.upload(*good)
        client.upload(*bad)
        client.activate(good[0], lambda *at: stages.append(at), release=b"signed")
        assert device.release == b"signed"
        client.confirm(good[0])
        assert device.confirmed == good[0]
        with pytest.raises(DeviceRefused, match="is not active"):
            client.confirm(bad[0])
        assert stages == [("self-test", 1, 1)]
        assert client.refresh().active_bundle == good[0]
        with pytest.raises(DeviceRefused, match="golden output") as caught:
            client.activate(bad[0])
        assert caught.value.code == RefusalCode.SELF_TEST
        with pytest.raises(DeviceRefused) as caught:
            client.activate("77" * 32)
        assert caught.value.code == RefusalCode.UNKNOWN_BUNDLE
    assert device.active == good[0]


def test_a_job_reports_each_step_and_its_result(bench: Bench) -> None:
    device = start(bench)
    payload = os.urandom(64_001)
    job = echo(new_job_id(), payload, steps=5)
    with bench.client() as client:
        client.submit(job)
        events = list(client.events())
        assert events[:-1] == [Progress(job.job_id, step, 5, passes=1) for step in range(1, 6)]
        assert events[-1] == Result(job.job_id, {"steps": 5, "score": 0.5}, payload[::-1])
        assert list(client.events()) == []
        client.refresh()
    assert device.forgotten == [job.job_id]


def test_a_job_that_is_watched_sends_previews(bench: Bench) -> None:
    start(bench)
    with bench.client() as client:
        client.submit(replace(echo("seen", steps=6), preview_every=3))
        previews = [event for event in client.events() if isinstance(event, Preview)]
        assert previews == [Preview("seen", step, 6, (1, 2, 2), bytes([step] * 4)) for step in (3, 6)]
        assert client.run(replace(echo("again"), preview_every=1)).job_id == "again"


def test_jobs_are_interleaved_and_keep_apart(bench: Bench) -> None:
    device = start(bench, PausedDevice())
    jobs = [echo(f"job-{number}", bytes([number]) * (9000 * number), steps=20) for number in range(4)]
    with bench.client() as client:
        for job in jobs:
            client.submit(job)
        with pytest.raises(LocalProtocolError):
            client.submit(jobs[0])
        device.paused = False
        events = list(client.events())
    results = {event.job_id: event.payload for event in events if isinstance(event, Result)}
    assert results == {job.job_id: job.payload[::-1] for job in jobs}
    for job in jobs:
        steps = [event.step for event in events if isinstance(event, Progress) and event.job_id == job.job_id]
        assert steps == list(range(1, 21))
    last_first_step = max(events.index(Progress(job.job_id, 1, 20, passes=1)) for job in jobs)
    assert last_first_step < min(index for index, event in enumerate(events) if isinstance(event, Result))


def test_a_large_payload_goes_both_ways(bench: Bench) -> None:
    start(bench)
    payload = os.urandom(3_000_000)
    with bench.client() as client:
        assert client.run(echo("large", payload)).payload == payload[::-1]


def test_what_a_device_does_not_take(bench: Bench) -> None:
    device = start(bench, MemoryDevice(slots=1))
    with bench.client() as client:
        with pytest.raises(DeviceRefused) as refused:
            client.submit(JobRequest("a", "dance"))
        assert refused.value.code == RefusalCode.UNSUPPORTED
        with pytest.raises(JobInputError, match="steps is a number") as wrong:
            client.submit(echo("b", steps="many"))
        assert wrong.value.exit_code == 12
        client.submit(echo("c", steps=10**6))
        with pytest.raises(DeviceRefused) as busy:
            client.submit(echo("d"))
        assert busy.value.code == RefusalCode.BUSY
        client.cancel("c")
        assert next(event for event in client.events() if isinstance(event, Failure)).code == FailureCode.CANCELLED
        assert client.run(echo("d", b"abc")).payload == b"cba"  # it takes the next job
    assert device.started == ["c", "d"]


@pytest.mark.parametrize(
    ("code", "kind", "exit_code"),
    [
        (FailureCode.ENGINE_DIED, JobFailed, 11),
        (FailureCode.OUT_OF_MEMORY, JobFailed, 11),
        (FailureCode.BAD_INPUT, JobInputError, 12),
        (4711, JobFailed, 11),
    ],
)
def test_a_failed_job_is_an_error_and_the_next_one_runs(
    bench: Bench, code: int, kind: type[JobFailed], exit_code: int
) -> None:
    start(bench)
    with bench.client() as client:
        with pytest.raises(kind, match="as asked") as caught:
            client.run(echo("a", fail=int(code)))
        assert (caught.value.code, caught.value.exit_code) == (code, exit_code)
        assert client.run(echo("b", b"abc")).payload == b"cba"


def test_cancelling_what_is_not_there_is_fine(bench: Bench) -> None:
    start(bench)
    with bench.client() as client:
        client.cancel("nothing")
        client.run(echo("a"))
        client.cancel("a")
        assert client.run(echo("b", b"abc")).payload == b"cba"


def test_leaving_cancels_what_has_not_ended(bench: Bench) -> None:
    device = start(bench)
    with bench.client() as client:
        client.submit(echo("endless", steps=10**9))
        next(client.events())
    deadline = time.monotonic() + 5.0
    while device._running or device.connected:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert device._ended["endless"].code == FailureCode.CANCELLED
