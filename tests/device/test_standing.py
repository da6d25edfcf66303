"""Which bundle is active, which is kept behind it, and how a trial ends."""

from __future__ import annotations

import pytest

from edge.device.standing import Kept, Standing, StandingFile, Trust
from edge.device.trial import Trial
from firmware_bridge.testing.disk import MemoryDisk

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def of(*bundles: tuple[str, Trust], version: int = 0) -> Standing:
    return Standing(tuple(Kept(*each) for each in bundles), version)


def test_a_new_bundle_is_on_trial_and_the_old_one_stays_behind_it() -> None:
    standing = Standing().activated(A, 1, 0)
    assert standing == of((A, Trust.TRIAL), version=1)
    standing = standing.marked(Trust.GOOD).activated(B, 2, 0)
    assert standing == of((B, Trust.TRIAL), (A, Trust.GOOD), version=2)


def test_behind_a_new_bundle_stays_the_one_that_is_good() -> None:
    standing = of((B, Trust.TRIAL), (A, Trust.GOOD)).activated(C, 3, 1)
    assert (standing.ids, standing.version, standing.downgrades) == ([C, A], 3, 1)
    assert of((B, Trust.TRIAL), (A, Trust.TRYING)).activated(C, 0, 0).ids == [C, B]


def test_the_active_bundle_activated_again_stays_as_good_as_it_is() -> None:
    standing = of((B, Trust.GOOD), (A, Trust.GOOD))
    assert standing.activated(B, 7, 0) == of((B, Trust.GOOD), (A, Trust.GOOD), version=7)
    assert standing.activated(A, 8, 0) == of((A, Trust.TRIAL), (B, Trust.GOOD), version=8)


def test_falling_back_forgets_the_newer_bundle() -> None:
    assert of((B, Trust.TRYING), (A, Trust.GOOD), version=5).fallen_back(A) == of((A, Trust.GOOD), version=5)


def test_the_file_is_read_again_and_damage_is_no_active_bundle() -> None:
    disk = MemoryDisk()
    file = StandingFile(disk)
    assert (file.now, file.now.trust) == (Standing(), None)
    file.save(of((B, Trust.TRYING), (A, Trust.GOOD), version=5))
    writes = disk.operations
    file.save(file.now)
    assert disk.operations == writes
    assert StandingFile(disk).now == of((B, Trust.TRYING), (A, Trust.GOOD), version=5)
    disk.write("active", 20, b"x")
    assert StandingFile(disk).now == Standing()


@pytest.fixture
def file() -> StandingFile:
    file = StandingFile(MemoryDisk())
    file.save(of((B, Trust.TRIAL), (A, Trust.GOOD)))
    return file


def test_the_first_good_job_makes_a_bundle_good(file: StandingFile) -> None:
    trial = Trial(file)
    trial.begins("1")
    assert file.now.trust is Trust.TRYING
    trial.ended("1", well=True, crashed=False)
    assert file.now.trust is Trust.GOOD
    trial.begins("2")
    trial.ended("2", well=False, crashed=True)
    assert file.now.trust is Trust.GOOD


def test_a_job_that_fails_by_itself_says_nothing_about_the_bundle(file: StandingFile) -> None:
    trial = Trial(file)
    trial.begins("1")
    trial.begins("2")
    trial.ended("1", well=False, crashed=False)
    assert file.now.trust is Trust.TRYING  # the other still runs
    trial.ended("2", well=False, crashed=False)
    assert file.now.trust is Trust.TRIAL


def test_an_engine_that_dies_on_trial_counts_until_a_job_ends_well(file: StandingFile) -> None:
    trial = Trial(file)
    trial.begins("1")
    trial.ended("1", well=False, crashed=True)
    trial.interrupted()
    assert file.now.trust is Trust.TRYING
    trial.begins("2")
    trial.ended("2", well=True, crashed=False)
    assert file.now.trust is Trust.GOOD


def test_an_orderly_stop_is_no_crash_and_a_host_may_confirm(file: StandingFile) -> None:
    trial = Trial(file)
    trial.begins("1")
    trial.interrupted()
    assert file.now.trust is Trust.TRIAL
    trial.interrupted()
    trial.passed()
    assert file.now.trust is Trust.GOOD


def test_without_a_bundle_there_is_no_trial() -> None:
    file = StandingFile(MemoryDisk())
    trial = Trial(file)
    trial.begins("1")
    trial.ended("1", well=True, crashed=False)
    assert file.now == Standing()
