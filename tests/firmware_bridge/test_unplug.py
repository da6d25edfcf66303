"""A port that goes away and comes back under another number, and what answers there."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from firmware_bridge.client import Client
from firmware_bridge.errors import LinkError
from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import JobRequest, Progress, Result
from firmware_bridge.testing.bench import Bench, Order
from firmware_bridge.testing.device import MemoryDevice


def plug(name: Path, bench: Bench, device: MemoryDevice) -> None:
    """A cable with this device at its end, under this name."""
    bench.start(device)
    new = name.with_suffix(".new")
    new.symlink_to(bench.line.host_path)
    new.rename(name)


def unplug(bench: Bench) -> None:
    bench.end(Order.KILL)
    bench.line.close()


def test_a_job_outlives_its_cable(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    name, device = tmp_path / "board", MemoryDevice(between_steps=lambda _: time.sleep(0.002))
    first = make_bench()
    plug(name, first, device)
    with Client.open(str(name), connect_timeout=20) as client:
        client.submit(JobRequest("long", "echo", {"steps": 300}, b"payload"))
        events = client.events()
        assert isinstance(next(events), Progress)
        unplug(first)
        plug(name, make_bench(), device)
        *_, last = events
    assert last == Result("long", {"steps": 300, "score": 0.5}, b"daolyap")
    assert device.started == ["long"]
    assert device.sessions == 2


def test_a_port_that_does_not_come_back_is_said(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    name, bench = tmp_path / "board", make_bench()
    plug(name, bench, MemoryDevice())
    with Client.open(str(name), connect_timeout=1.5) as client:
        name.unlink()
        unplug(bench)
        with pytest.raises(LinkError, match=r"did not come back within 1.5 s"):
            client.refresh()


class _Other(MemoryDevice):
    def describe(self) -> DeviceInfo:
        return dataclasses.replace(super().describe(), device_id="another")


def test_another_device_on_the_same_port_is_not_taken_for_the_first(
    make_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    name, bench = tmp_path / "board", make_bench()
    plug(name, bench, MemoryDevice())
    with Client.open(str(name), connect_timeout=20) as client:
        unplug(bench)
        plug(name, make_bench(), _Other())
        with pytest.raises(LinkError, match="another device answers: another"):
            client.refresh()
