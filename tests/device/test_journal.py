"""The journal against a real file: outcomes survive, torn ends are cut, damage is skipped, nothing grows for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.device import journal as module
from edge.device.journal import Journal, Outcome


def test_an_outcome_survives_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.accept("a", "generate", b"request")
    assert journal.outcome("a") is None
    outcome = Outcome(meta={"score": 0.5, "shape": [1, 2, 2]}, payload=b"pixels")
    journal.finish("a", outcome)
    journal = Journal(tmp_path)
    assert journal.interrupted == []
    assert journal.knows("a")
    assert journal.outcome("a") == outcome
    assert not journal.knows("b")
    assert journal.outcome("b") is None


def test_a_job_that_was_not_finished_is_interrupted(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for name in "ab":
        journal.accept(name, "generate", b"")
    journal.finish("a", Outcome(failure=2, message="the engine died"))
    journal = Journal(tmp_path)
    assert journal.interrupted == ["b"]
    journal.finish("b", Outcome(failure=1, message="interrupted"))
    assert Journal(tmp_path).interrupted == []
    assert Journal(tmp_path).outcome("a") == Outcome(failure=2, message="the engine died")


def test_the_same_id_with_another_request_is_told_apart(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.accept("a", "generate", b"seed 1")
    journal = Journal(tmp_path)
    assert journal.same("a", b"seed 1")
    assert not journal.same("a", b"seed 2")


def test_a_taken_outcome_is_dropped_but_its_id_stays_known(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.accept("a", "generate", b"")
    journal.finish("a", Outcome(payload=b"pixels"))
    journal.taken("a")
    journal.taken("unknown")
    assert list((tmp_path / "outcomes").iterdir()) == []
    assert Journal(tmp_path).knows("a")
    assert Journal(tmp_path).outcome("a") is None


def test_a_record_cut_anywhere_is_as_if_it_had_not_been_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.accept("a", "generate", b"")
    whole = (tmp_path / "journal").read_bytes()
    journal.accept("b", "generate", b"")
    both = (tmp_path / "journal").read_bytes()
    for length in range(len(whole), len(both)):
        (tmp_path / "journal").write_bytes(both[:length])
        journal = Journal(tmp_path)
        assert journal.interrupted == ["a"], length
        assert (tmp_path / "journal").read_bytes() == whole
    journal.accept("c", "generate", b"")
    assert Journal(tmp_path).interrupted == ["a", "c"]


def test_a_damaged_line_costs_that_line_only(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for name in "abc":
        journal.accept(name, "generate", b"")
    path = tmp_path / "journal"
    lines = path.read_bytes().splitlines(keepends=True)
    for position in range(len(lines[1]) - 1):
        damaged = bytearray(lines[1])
        damaged[position] ^= 0x01
        path.write_bytes(lines[0] + bytes(damaged) + lines[2])
        assert Journal(tmp_path).interrupted == ["a", "c"], position


def test_a_damaged_payload_is_not_given_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.accept("a", "generate", b"")
    journal.finish("a", Outcome(payload=b"pixels"))
    (tmp_path / "outcomes" / "a.bin").write_bytes(b"pixel5")
    assert journal.outcome("a") is None


def test_the_file_is_compacted_and_the_oldest_jobs_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_JOBS", 4)
    monkeypatch.setattr(module, "_COMPACT_ABOVE", 16)
    journal = Journal(tmp_path)
    journal.accept("open", "generate", b"")
    for n in range(100):
        journal.accept(f"job-{n}", "generate", b"")
        journal.finish(f"job-{n}", Outcome(payload=b"%d" % n))
    assert (tmp_path / "journal").read_bytes().count(b"\n") <= 17
    journal = Journal(tmp_path)
    assert journal.interrupted == ["open"]
    assert [journal.knows(f"job-{n}") for n in (0, 95, 96, 99)] == [False, False, True, True]
    assert journal.outcome("job-99") == Outcome(payload=b"99")
    assert len(list((tmp_path / "outcomes").iterdir())) == 4


def test_payloads_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_PAYLOAD_BYTES", 250)
    journal = Journal(tmp_path)
    for n in range(5):
        journal.accept(f"job-{n}", "generate", b"")
        journal.finish(f"job-{n}", Outcome(payload=bytes(100)))
    assert sorted(path.name for path in (tmp_path / "outcomes").iterdir()) == ["job-3.bin", "job-4.bin"]
    assert journal.outcome("job-0") is None
    assert journal.knows("job-0")
