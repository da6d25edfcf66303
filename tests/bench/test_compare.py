"""Which rows a comparison has; what was counted is not counted again; what stays of a program in memory."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from tests.bench import contest, counted
from tests.bench.compare import OURS, wanted
from tests.bench.instructions import BenchError, Counts


def test_rows_by_words_of_their_names() -> None:
    assert wanted("XNNPACK int8", [])
    assert wanted("XNNPACK int8", ["ncnn", "xnnpack int8"])
    assert wanted("XNNPACK int8", ["INT8"])
    assert not wanted("XNNPACK fp32", ["xnnpack int8", "ncnn"])
    assert next(iter(OURS)) == "ours"


def test_what_was_counted_is_kept_and_a_cut_off_count_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path))
    calls = []

    def make() -> Counts:
        calls.append(1)
        if len(calls) == 1:
            raise BenchError("cut off")
        return Counts({"sdot": 7, "load": len(calls)})

    with pytest.raises(BenchError):
        counted.kept(make, "program", "cortex-a76")
    assert counted.kept(make, "program", "cortex-a76") == {"sdot": 7, "load": 2}
    assert counted.kept(make, "program", "cortex-a76").total == 9
    assert counted.kept(make, "other program", "cortex-a76") == {"sdot": 7, "load": 3}


def test_pages_given_back_are_not_resident(tmp_path: Path) -> None:
    path = tmp_path / "weights with a space"
    path.write_bytes(bytes(40 * mmap.PAGESIZE))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) == 0
        assert contest.resident_bytes(os.getpid(), path) == 40 * mmap.PAGESIZE
        mapped.madvise(mmap.MADV_DONTNEED, 0, 40 * mmap.PAGESIZE)
        assert contest.resident_bytes(os.getpid(), path) == 0
