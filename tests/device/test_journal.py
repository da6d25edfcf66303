"""The journal: outcomes survive, torn ends are cut, damage is skipped, nothing grows for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.device import journal as module
from edge.device import records
from edge.device.disk import Disk, FolderDisk
from edge.device.journal import Journal, Outcome, Unfinished
from firmware_bridge.testing.disk import MemoryDisk


@pytest.fixture(params=["memory", "folder"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return MemoryDisk() if request.param == "memory" else FolderDisk(tmp_path)


def ids(disk: Disk) -> list[str]:
    return [job.job_id for job in Journal(disk).unfinished()]


def test_an_outcome_survives_a_restart(disk: Disk) -> None:
    journal = Journal(disk)
    journal.accept("a", b"request")
    assert journal.outcome("a") is None
    outcome = Outcome(meta={"score": 0.5, "shape": [1, 2, 2]}, payload=b"pixels")
    journal.finish("a", outcome)
    journal = Journal(disk)
    assert journal.unfinished() == []
    assert journal.knows("a")
    assert journal.outcome("a") == outcome
    assert not journal.knows("b")
    assert journal.outcome("b") is None


def test_a_job_that_was_not_finished_is_remembered_whole(disk: Disk) -> None:
    journal = Journal(disk)
    journal.accept("a", b"seed 1")
    journal.accept("b", b"seed 2", {"bundle": "b" * 64, "deadline": None})
    journal.finish("a", Outcome(failure=2, message="the engine died"))
    journal = Journal(disk)
    assert journal.unfinished() == [Unfinished("b", b"seed 2", {"bundle": "b" * 64, "deadline": None}, 0)]
    assert journal.start("b") == 1
    journal = Journal(disk)
    assert journal.unfinished()[0].starts == 1
    assert journal.start("b") == 2
    journal.finish("b", Outcome(failure=1, message="interrupted"))
    assert ids(disk) == []
    assert Journal(disk).outcome("a") == Outcome(failure=2, message="the engine died")
    assert disk.names("requests") == []


@pytest.mark.parametrize("job_id", ["..", ".", ".x.new", "x.bin"])
def test_any_job_id_is_a_file_name(disk: Disk, job_id: str) -> None:
    journal = Journal(disk)
    journal.accept(job_id, b"request")
    assert Journal(disk).unfinished()[0].request == b"request"
    journal.finish(job_id, Outcome(payload=b"pixels"))
    assert Journal(disk).outcome(job_id) == Outcome(payload=b"pixels")


def test_a_request_that_the_disk_lost_or_changed_is_none(disk: Disk) -> None:
    journal = Journal(disk)
    for name in "ab":
        journal.accept(name, b"request " + name.encode())
    disk.remove("requests/a.bin")
    disk.write("requests/b.bin", 0, b"R")
    assert [job.request for job in Journal(disk).unfinished()] == [None, None]


def test_a_request_that_was_never_announced_is_removed(disk: Disk) -> None:
    Journal(disk)
    disk.write("requests/a.bin", 0, b"x")
    disk.write("requests/.b.bin.new", 0, b"x")
    Journal(disk)
    assert disk.names("requests") == []


def test_a_job_ends_once(disk: Disk) -> None:
    journal = Journal(disk)
    journal.accept("a", b"")
    journal.finish("a", Outcome(payload=b"first"))
    journal.finish("a", Outcome(payload=b"second"))
    assert journal.outcome("a") == Outcome(payload=b"first")


def test_the_same_id_with_another_request_is_told_apart(disk: Disk) -> None:
    Journal(disk).accept("a", b"seed 1")
    journal = Journal(disk)
    assert journal.same("a", b"seed 1")
    assert not journal.same("a", b"seed 2")


def test_a_taken_outcome_is_dropped_but_its_id_stays_known(disk: Disk) -> None:
    journal = Journal(disk)
    journal.accept("a", b"")
    journal.taken("a")  # has not ended
    journal.finish("a", Outcome(payload=b"pixels"))
    journal.taken("a")
    journal.taken("unknown")
    assert disk.names("outcomes") == []
    assert Journal(disk).knows("a")
    assert Journal(disk).outcome("a") is None


def test_a_record_cut_anywhere_is_as_if_it_had_not_been_written(disk: Disk) -> None:
    journal = Journal(disk)
    journal.accept("a", b"")
    whole = disk.read("journal")
    journal.accept("b", b"")
    both = disk.read("journal")
    for length in range(len(whole), len(both)):
        disk.cut("journal", 0)
        disk.write("journal", 0, both[:length])
        journal = Journal(disk)
        assert [job.job_id for job in journal.unfinished()] == ["a"], length
        assert disk.read("journal") == whole
    journal.accept("c", b"")
    assert ids(disk) == ["a", "c"]


def test_a_damaged_line_costs_that_line_only(disk: Disk) -> None:
    journal = Journal(disk)
    for name in "abc":
        journal.accept(name, b"")
    lines = disk.read("journal").splitlines(keepends=True)
    for position in range(len(lines[1]) - 1):
        damaged = bytearray(lines[1])
        damaged[position] ^= 0x01
        disk.write("journal", 0, lines[0] + bytes(damaged) + lines[2])
        assert ids(disk) == ["a", "c"], position


def test_a_record_of_a_job_that_is_not_known_is_passed_over(disk: Disk) -> None:
    Journal(disk)
    disk.write(
        "journal",
        0,
        records.encode({"event": "started", "job": "x"}) + records.encode({"event": "finished", "job": "x"}),
    )
    journal = Journal(disk)
    assert not journal.knows("x")


def test_a_damaged_payload_is_not_given_out(disk: Disk) -> None:
    journal = Journal(disk)
    journal.accept("a", b"")
    journal.finish("a", Outcome(payload=b"pixels"))
    disk.write("outcomes/a.bin", 5, b"5")
    assert journal.outcome("a") is None


def test_half_a_record_on_a_full_disk_does_not_spoil_the_next_one() -> None:
    disk = MemoryDisk()
    journal = Journal(disk)
    journal.accept("a", b"")
    real = disk.write

    def half(name: str, offset: int, data: bytes) -> None:
        real(name, offset, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "write", half)
        with pytest.raises(OSError, match="No space"):
            journal.start("a")
    assert journal.unfinished()[0].starts == 0
    journal.accept("b", b"")
    journal.finish("a", Outcome())
    assert ids(disk) == ["b"]
    assert Journal(disk).outcome("a") == Outcome()


def test_the_file_is_compacted_and_the_oldest_jobs_are_forgotten(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_JOBS", 4)
    monkeypatch.setattr(module, "_COMPACT_ABOVE", 16)
    journal = Journal(disk)
    journal.accept("open", b"request", {"priority": 3})
    journal.start("open")
    for n in range(100):
        journal.accept(f"job-{n}", b"")
        journal.finish(f"job-{n}", Outcome(payload=b"%d" % n))
    assert disk.read("journal").count(b"\n") <= 17
    journal = Journal(disk)
    assert journal.unfinished() == [Unfinished("open", b"request", {"priority": 3}, 1)]
    assert [journal.knows(f"job-{n}") for n in (0, 95, 96, 99)] == [False, False, True, True]
    assert journal.outcome("job-99") == Outcome(payload=b"99")
    assert len(disk.names("outcomes")) == 4


def test_payloads_are_bounded_in_bytes(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_PAYLOAD_BYTES", 250)
    journal = Journal(disk)
    for n in range(5):
        journal.accept(f"job-{n}", b"")
        journal.finish(f"job-{n}", Outcome(payload=bytes(100)))
        journal = Journal(disk) if n == 3 else journal
    assert disk.names("outcomes") == ["job-3.bin", "job-4.bin"]
    assert journal.outcome("job-0") is None
    assert journal.knows("job-0")
    journal.accept("large", b"")
    journal.finish("large", Outcome(payload=bytes(1000)))
    assert disk.names("outcomes") == ["large.bin"]


def test_half_a_line_and_an_empty_one_are_no_damage(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    Journal(disk).accept("a", b"")
    whole = disk.read("journal")
    disk.write("journal", 0, b"\n" + whole + b"\n")
    assert ids(disk) == ["a"]
    assert not caplog.records
