"""Find a board by name or path, read its file, check that its parts agree.

A name is looked up among the files beside this module and in the folder named by the environment
variable ``EDGE_BOARDS``. Anything with a slash, or ending in ``.toml``, is a path.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from boards.errors import BoardError
from boards.model import Board
from boards.schema import build, nearest

if TYPE_CHECKING:
    from boards.model import Arch, Cpu, Isa

BOARDS_VARIABLE = "EDGE_BOARDS"
_BUILT_IN = Path(__file__).parent
_SIZE_LIMIT = 64 * 1024  # a board file is a page of text; anything larger is not one

# Linux' names (/proc/cpuinfo: "Features" on ARM, "flags" on x86) to ours.
_CPUINFO: dict[str, Isa] = {
    "asimd": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fp16",
    "i8mm": "i8mm",
    "atomics": "atomics",
    "crc32": "crc32",
    "avx2": "avx2",
    "avx512_vnni": "avx512vnni",
}
_ISA_OF: dict[str, frozenset[str]] = {
    "aarch64": frozenset({"neon", "dotprod", "fp16", "i8mm", "atomics", "crc32"}),
    "x86_64": frozenset({"avx2", "avx512vnni"}),
}


def list_boards() -> tuple[str, ...]:
    """The names that ``load_board`` takes, sorted; the files are not read.

    Raises:
        BoardError: ``EDGE_BOARDS`` names no folder, or redefines a built-in board.
    """
    return tuple(sorted(_files()))


def load_board(name_or_path: str | Path) -> Board:
    """Read and check one board.

    Args:
        name_or_path: "rpi5", or the path of a TOML file of one's own.

    Raises:
        BoardError: no such board (the known ones are listed), an unreadable file, or a file that does not hold
            what it must (file, key and allowed values are named).
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text or text.endswith(".toml"):
        return _read(Path(name_or_path))
    files = _files()
    if text not in files:
        known = ", ".join(sorted(files))
        mend = f"{nearest(text, sorted(files))}known boards: {known}; or give the path of a .toml file"
        raise BoardError(f"unknown board {text!r}", mend=mend)
    board = _read(files[text])
    if board.name != text:
        raise BoardError(
            f"{board.name!r} is not the file's name", where=f"{files[text]}: name", mend=f"write name = {text!r}"
        )
    return board


def _files() -> dict[str, Path]:
    files = {path.stem: path for path in _BUILT_IN.glob("*.toml")}
    folder = os.environ.get(BOARDS_VARIABLE)
    if not folder:
        return files
    if not Path(folder).is_dir():
        raise BoardError("no such folder", where=f"${BOARDS_VARIABLE}={folder}", mend="create it or unset the variable")
    for path in Path(folder).glob("*.toml"):
        if path.stem in files:
            raise BoardError(
                f"the name {path.stem!r} is already a board of the kit", where=str(path), mend="give it another name"
            )
        files[path.stem] = path
    return files


def _read(path: Path) -> Board:
    try:
        with path.open("rb") as file:
            data = file.read(_SIZE_LIMIT + 1)
    except OSError as error:
        mend = f"known boards: {', '.join(list_boards())}"
        raise BoardError(f"cannot read the board file: {error.strerror}", where=str(path), mend=mend) from error
    if len(data) > _SIZE_LIMIT:
        raise BoardError(f"larger than {_SIZE_LIMIT // 1024} KiB", where=str(path), mend="is it a board file?")
    try:
        table = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise BoardError("not UTF-8 text", where=str(path), mend="save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise BoardError(f"not TOML: {error}", where=str(path), mend="mend the line named") from error
    board = build(Board, table, str(path))
    if board.cpu.arch == "native":
        board = dataclasses.replace(board, cpu=_native(board.cpu, str(path)))
    _agree(board, str(path))
    return board


def _native(cpu: Cpu, file: str) -> Cpu:
    """The machine's own architecture and features in place of ``arch = "native"``."""
    machine = platform.machine()
    arch: dict[str, Arch] = {"aarch64": "aarch64", "arm64": "aarch64", "x86_64": "x86_64", "AMD64": "x86_64"}
    if machine not in arch:
        raise BoardError(
            f"this machine is {machine!r}, which the kit has no engine for",
            where=f"{file}: cpu.arch",
            mend="use an aarch64 or x86_64 machine",
        )
    flags: set[str] = set()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                flags.update(line.partition(":")[2].split())
                break
    except OSError:
        flags = set()  # not Linux: the engine still finds the features out by itself
    allowed = _ISA_OF[arch[machine]]
    isa = tuple(ours for theirs, ours in _CPUINFO.items() if theirs in flags and ours in allowed)
    return dataclasses.replace(cpu, arch=arch[machine], isa=isa)


def _agree(board: Board, file: str) -> None:
    """The checks that need more than one key."""
    memory = board.memory
    if memory.budget_bytes > memory.total_bytes:
        raise BoardError("more than memory.total_bytes", where=f"{file}: memory.budget_bytes", mend="lower the budget")
    if memory.state_budget_bytes > memory.budget_bytes:
        raise BoardError(
            "more than memory.budget_bytes", where=f"{file}: memory.state_budget_bytes", mend="lower the state budget"
        )
    allowed = _ISA_OF[board.cpu.arch]
    for feature in board.cpu.isa:
        if feature not in allowed:
            mend = f"allowed: {', '.join(sorted(allowed))}"
            raise BoardError(f"{board.cpu.arch} has no {feature!r}", where=f"{file}: cpu.isa", mend=mend)
    if len(set(board.cpu.isa)) != len(board.cpu.isa):
        raise BoardError("a feature is named twice", where=f"{file}: cpu.isa", mend="name each once")
    if "dotprod" in board.cpu.isa and "neon" not in board.cpu.isa:
        raise BoardError("'dotprod' without 'neon'", where=f"{file}: cpu.isa", mend="add 'neon'")
