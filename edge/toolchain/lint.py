"""A second opinion on the C++: clang's warnings, as errors, for both architectures."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from edge.errors import ToolchainError
from edge.toolchain.compilation import COMMON_FLAGS, JOBS, Compilation, Target, run_compiler
from edge.toolchain.runtime import find_runtime, native_arch
from edge.toolchain.sources import Unit, engine_units, selftest_units

if TYPE_CHECKING:
    from pathlib import Path

_CLANG = "clang++"
_EXTRA_WARNINGS = (
    "-Wshadow",
    "-Wconversion-null",
    "-Wimplicit-fallthrough",
    "-Wnon-virtual-dtor",
    "-Wunreachable-code",
)


def lint(cache: Path) -> int:
    """Checks every C++ file for this machine, and for aarch64 where the cross compiler's headers are there.

    Args:
        cache: where the runtime for aarch64 is kept.

    Returns:
        How many files were checked.

    Raises:
        ToolchainError: clang is missing, or it warns.
    """
    if shutil.which(_CLANG) is None:
        raise ToolchainError(f"{_CLANG} is not installed", mend="sudo apt install clang")
    arches = [native_arch()]
    if shutil.which("aarch64-linux-gnu-g++") is not None and "aarch64" not in arches:
        arches.append("aarch64")
    checks = [check for arch in arches for check in _checks(arch, cache)]
    with ThreadPoolExecutor(JOBS) as pool:
        for outcome in [pool.submit(run_compiler, command, unit.name) for unit, command in checks]:
            outcome.result()
    return len(checks)


def _checks(arch: str, cache: Path) -> list[tuple[Unit, list[str]]]:
    target = Target(arch, _CLANG, "")
    units = {unit.name: unit for unit in (*engine_units(arch), *selftest_units(arch))}
    work = Compilation(target, tuple(units.values()), find_runtime(arch, cache), sanitize=False)
    command = [_CLANG, f"--target={arch}-linux-gnu", "-fsyntax-only", *COMMON_FLAGS, *_EXTRA_WARNINGS]
    return [(unit, [*command, *unit.flags, *work.include_flags(), str(unit.path)]) for unit in work.units]
