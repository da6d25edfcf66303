"""Boards load, and every way a file can be wrong ends in an error that names file, key and allowed values."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import boards
from boards import BoardError, list_boards, load_board

BUILT_IN = Path(boards.__file__).parent
GOOD = (BUILT_IN / "rpi5.toml").read_text()


def written(folder: Path, text: str, name: str = "mine") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_the_kit_knows_its_boards() -> None:
    assert list_boards() == ("host", "rpi4", "rpi5")


@pytest.mark.parametrize("name", ["host", "rpi4", "rpi5"])
def test_every_board_loads_and_its_budgets_nest(name: str) -> None:
    board = load_board(name)
    assert board.name == name
    assert 0 < board.memory.state_budget_bytes <= board.memory.budget_bytes <= board.memory.total_bytes
    assert board.cpu.arch in ("aarch64", "x86_64")


def test_only_the_rpi5_has_the_dot_product() -> None:
    assert load_board("rpi5").cpu.has("dotprod")
    assert not load_board("rpi4").cpu.has("dotprod")
    assert load_board("rpi4").cpu.has("neon")


def test_virtual_boards_name_their_emulated_core() -> None:
    emulators = {name: load_board(name).emulator for name in ("rpi4", "rpi5")}
    assert {name: e.cpu for name, e in emulators.items() if e} == {"rpi4": "cortex-a72", "rpi5": "cortex-a76"}
    assert load_board("host").emulator is None


def test_a_board_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_board("rpi5").slots = 3  # type: ignore[misc]


def test_an_unknown_board_lists_the_known_ones_and_a_guess() -> None:
    with pytest.raises(BoardError) as caught:
        load_board("rpi6")
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert "'rpi6'" in message
    assert "did you mean" in message
    assert all(name in message for name in list_boards())


def test_a_board_of_ones_own_by_path(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace('name = "rpi5"', 'name = "line-3"'))
    assert load_board(path).name == "line-3"
    assert load_board(str(path)) == load_board(path)


def test_a_board_of_ones_own_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, GOOD.replace('name = "rpi5"', 'name = "line-3"'), "line-3")
    monkeypatch.setenv("EDGE_BOARDS", str(tmp_path))
    assert load_board("line-3").cpu.core == "cortex-a76"
    assert "line-3" in list_boards()


def test_a_folder_may_not_redefine_a_board_of_the_kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, GOOD, "rpi5")
    monkeypatch.setenv("EDGE_BOARDS", str(tmp_path))
    with pytest.raises(BoardError, match="already a board of the kit"):
        load_board("rpi5")


def test_a_folder_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_BOARDS", str(tmp_path / "nowhere"))
    with pytest.raises(BoardError, match=r"\$EDGE_BOARDS=.*nowhere"):
        list_boards()


def test_a_file_in_the_folder_bears_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, GOOD, "line-3")
    monkeypatch.setenv("EDGE_BOARDS", str(tmp_path))
    with pytest.raises(BoardError, match="not the file's name"):
        load_board("line-3")


@pytest.mark.parametrize(
    ("old", "new", "key", "told"),
    [
        ("slots = 2", "", "slots", "an integer from 1 to 64"),
        ("slots = 2", "slots = 0", "slots", "allowed: 1 to 64"),
        ("slots = 2", "slots = true", "slots", "found true or false"),
        ("slots = 2", "slot = 2", "slot", "did you mean 'slots'?"),
        ('arch = "aarch64"', 'arch = "arch64"', "cpu.arch", "did you mean 'aarch64'? allowed: aarch64, x86_64, native"),
        ("cores = 4", 'cores = "4"', "cpu.cores", "found text (it takes an integer from 1 to 1_024)"),
        ('"dotprod"', '"dotprot"', "cpu.isa[1]", "did you mean 'dotprod'?"),
        ('"dotprod"', '"avx2"', "cpu.isa", "aarch64 has no 'avx2'"),
        ('"neon", ', "", "cpu.isa", "'dotprod' without 'neon'"),
        ('"dotprod"', '"neon"', "cpu.isa", "named twice"),
        ('isa = ["neon"', 'isa = "neon" #', "cpu.isa", "it takes a list"),
        ('"1 GiB"', '"1 GB"', "memory.budget_bytes", "512 MiB"),
        ('"1 GiB"', "-1", "memory.budget_bytes", "not a size"),
        ('"1 GiB"', '"9 GiB"', "memory.budget_bytes", "more than memory.total_bytes"),
        ('"512 MiB"', '"2 GiB"', "memory.state_budget_bytes", "more than memory.budget_bytes"),
        ("vendor = 0x2e8a", "vendor = 0x12e8a", "link.usb_ids[0].vendor", "allowed: 0 to 65_535"),
        ('kind = "uart"', 'kind = "spi"', "link.kind", "allowed: uart, usb"),
        ('name = "rpi5"', 'name = "RPI 5"', "name", "lower-case letters"),
        ("[storage]", "[storag]", "storag", "did you mean 'storage'?"),
        ("[storage]", "[storage.x]", "storage.x", "unknown key"),
        ('sysroot = "/usr', 'sysroot = "usr', "emulator.sysroot", "an absolute path"),
        ("per_mac = ", "per_mac = nan #", "cost.per_mac", "allowed: 0 to 1e+09"),
        ("per_mac = ", "per_mac = -1 #", "cost.per_mac", "out of range"),
        ("per_mac = ", "per_mac = true #", "cost.per_mac", "it takes a number from 0"),
        ("per_call = ", "#", "cost.per_call", "the key is missing"),
    ],
)
def test_errors_name_file_key_and_what_is_allowed(tmp_path: Path, old: str, new: str, key: str, told: str) -> None:
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(BoardError) as caught:
        load_board(path)
    assert caught.value.where == f"{path}: {key}"
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("data", "told"),
    [(b"name = ", "not TOML"), (b"name = '\xff'", "not UTF-8"), (b"#" * 70_000, "larger than 64 KiB")],
)
def test_a_file_that_is_no_board_file(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(data)
    with pytest.raises(BoardError, match=told):
        load_board(path)


def test_a_path_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=r"gone\.toml: cannot read the board file: No such file"):
        load_board(tmp_path / "gone.toml")


def test_a_size_may_be_a_number(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace('"512 MiB"', "1_000_000"))
    assert load_board(path).memory.state_budget_bytes == 1_000_000


def test_a_board_without_cost_counts_macs(tmp_path: Path) -> None:
    board = load_board(written(tmp_path, GOOD.partition("[cost]")[0]))
    assert board.cost.layer(macs=12_345, inputs=7, outputs=9, passes=2) == 2 * 12_345


def test_cost_of_a_layer(tmp_path: Path) -> None:
    numbers = "[cost]\nper_mac = 0.5\nper_input = 2\nper_prologue = 4\nper_output = 3.0\nper_call = 100\n"
    cost = load_board(written(tmp_path, GOOD.partition("[cost]")[0] + numbers)).cost
    assert cost.layer(macs=1000, inputs=10, outputs=20, passes=0) == 3 * 20 + 100
    assert cost.layer(macs=1000, inputs=10, outputs=20, passes=2) == 2 * (500 + 60) + 3 * 20 + 100
    assert cost.layer(macs=1000, inputs=10, outputs=20, passes=2, prologue=False) == 2 * (500 + 20) + 3 * 20 + 100
