"""Where functions lie in ELF files: from a symbol to the file offset that the plugin reports, and back."""

from __future__ import annotations

import bisect
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from tests.bench.instructions import BenchError, Mark

EXECUTE_INSTRUCTION = "_ZN10executorch7runtime6Method19execute_instructionEv"
"""Runs one instruction of a program (one operator call); ExecuTorch 1.5's libexecutorch.so exports it."""


@dataclass(frozen=True)
class Function:
    """A function of a file; offset and size in bytes, within the file."""

    name: str
    offset: int
    size: int


@lru_cache(maxsize=64)
def functions(path: Path) -> tuple[Function, ...]:
    """The functions of an ELF file, by offset; names are demangled.

    A stripped file has only those that it exports.
    """
    found: dict[int, tuple[str, int]] = {}
    with path.open("rb") as file:
        elf: Any = ELFFile(file)
        segments = [s.header for s in elf.iter_segments() if s.header.p_type == "PT_LOAD"]
        for section in elf.iter_sections():
            if not isinstance(section, SymbolTableSection):
                continue
            for symbol in section.iter_symbols():
                entry = symbol.entry
                if entry.st_info.type != "STT_FUNC" or entry.st_shndx == "SHN_UNDEF":
                    continue
                offset = _file_offset(segments, entry.st_value)
                found[offset] = (symbol.name, max(entry.st_size, found.get(offset, ("", 0))[1]))
    names = _demangled([name for name, _ in found.values()])
    located = [Function(name, offset, size) for name, (offset, (_, size)) in zip(names, found.items(), strict=True)]
    return tuple(sorted(located, key=lambda function: function.offset))


def function_at(path: Path, offset: int) -> str | None:
    """The name of the function that holds ``offset``, or None."""
    known = functions(path)
    index = bisect.bisect_right(known, offset, key=lambda function: function.offset) - 1
    if index < 0 or offset >= known[index].offset + known[index].size:
        return None
    return known[index].name


def operator_mark(libexecutorch: Path) -> Mark:
    """The instruction that starts each operator call of a program.

    Args:
        libexecutorch: the ``libexecutorch.so`` that the program runs with.

    Raises:
        BenchError: the library does not export the function.
    """
    with libexecutorch.open("rb") as file:
        elf: Any = ELFFile(file)
        segments = [s.header for s in elf.iter_segments() if s.header.p_type == "PT_LOAD"]
        found = elf.get_section_by_name(".dynsym").get_symbol_by_name(EXECUTE_INSTRUCTION)
        if not found:
            raise BenchError("Method::execute_instruction is not exported", where=str(libexecutorch))
        return Mark(libexecutorch.name, _file_offset(segments, found[0].entry.st_value))


def _file_offset(segments: list[Any], address: int) -> int:
    for segment in segments:
        if segment.p_vaddr <= address < segment.p_vaddr + segment.p_memsz:
            return int(address - segment.p_vaddr + segment.p_offset)
    return int(address)


def _demangled(names: list[str]) -> list[str]:
    """C++ names as people write them, without argument types."""
    text = "\n".join(names)
    done = subprocess.run(["c++filt", "-p"], input=text, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines() if names else []
