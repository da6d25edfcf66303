"""Every operation on the disk is cut once, writes torn, what was not synced lost in every way: a bundle runs."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

import pytest

from edge.device.standing import Trust
from firmware_bridge.testing.disk import Loss, MemoryDisk, PowerCut

from .toy_store import NEW, OLD, THIRD, Node

SEEDS = int(os.environ.get("EDGE_POWER_CUT_SEEDS", "2"))
LOSSES = [(Loss.NOTHING, 0), (Loss.EVERYTHING, 0), *((Loss.ANYTHING, seed) for seed in range(SEEDS))]


def prepared(*, trying: bool = False) -> MemoryDisk:
    """A device that runs OLD, proved good; or NEW, in the middle of its first job, with OLD behind it."""
    disk = MemoryDisk()
    node = Node(disk)
    node.deploy(OLD)
    node.mark(Trust.TRYING)
    node.mark(Trust.GOOD)
    if trying:
        node.deploy(NEW)
        node.mark(Trust.TRYING)
    return disk


def upgrade(disk: MemoryDisk) -> None:
    Node(disk).deploy(NEW, b"signed")


def first_job(disk: MemoryDisk) -> None:
    node = Node(disk)
    node.deploy(NEW)
    node.mark(Trust.TRYING)
    node.mark(Trust.GOOD)


def go_back(disk: MemoryDisk) -> None:
    """A boot that finds the new bundle in its first job, and the deployment that mends it."""
    node = Node(disk)
    assert node.active == OLD.bundle_id
    node.deploy(THIRD)


def again(disk: MemoryDisk) -> None:
    """The same bundle once more, its release replaced; then two more, so that bundles are thrown out."""
    node = Node(disk)
    node.deploy(OLD, b"signed again")
    node.deploy(NEW)
    node.deploy(THIRD)


STORIES: dict[str, tuple[Callable[[MemoryDisk], None], bool, set[str]]] = {
    "upgrade": (upgrade, False, {OLD.bundle_id, NEW.bundle_id}),
    "first job": (first_job, False, {OLD.bundle_id, NEW.bundle_id}),
    "rollback": (go_back, True, {OLD.bundle_id, THIRD.bundle_id}),
    "again": (again, False, {OLD.bundle_id, NEW.bundle_id, THIRD.bundle_id}),
}


def cuts(story: str) -> Iterator[tuple[int, MemoryDisk]]:
    """The story with the power cut in operation 1, 2, ... until it ends without a cut."""
    run, trying, _ = STORIES[story]
    for number in range(1, 10_000):
        disk = prepared(trying=trying)
        disk.cut_at = disk.operations + number
        try:
            run(disk)
        except PowerCut:
            yield number, disk
        else:
            return


@pytest.mark.parametrize(("loss", "seed"), LOSSES, ids=[f"{loss.value}-{seed}" for loss, seed in LOSSES])
@pytest.mark.parametrize("story", STORIES)
def test_the_old_bundle_or_the_new_one_runs(story: str, loss: Loss, seed: int) -> None:
    seen = set()
    versions = set()
    operations = 0
    for number, disk in cuts(story):
        operations = number
        disk.restart(loss, random.Random(f"{seed} {number}"))
        node = Node(disk)
        node.check()
        seen.add(node.active)
        versions.add((node.active, node.standing.now.version))
        node.deploy(THIRD)  # and the device takes the next one
        node.check()
        assert node.active == THIRD.bundle_id
    assert operations > 30, "nothing was cut"
    assert seen <= STORIES[story][2]
    assert loss is not Loss.NOTHING or seen == STORIES[story][2]
    if story == "upgrade":  # a switch of bundles and the version that forbids to go back are one
        assert versions <= {(OLD.bundle_id, 1), (NEW.bundle_id, 2)}


@pytest.mark.parametrize("seed", range(3))
def test_the_power_is_cut_again_while_the_device_starts(seed: int) -> None:
    for number, first in cuts("rollback"):
        if number % 7 != seed:
            continue
        first.restart(Loss.ANYTHING, random.Random(number))
        for second in range(1, 100):
            first.cut_at = first.operations + second
            try:
                node = Node(first)
            except PowerCut:
                first.restart(Loss.ANYTHING, random.Random(f"{seed} {number} {second}"))
            else:
                first.cut_at = None
                node.check()
                break
