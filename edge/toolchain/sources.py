"""Which C++ files make the engine, and what each needs from the compiler.

A kernel's file name ends in its instruction set: that is where its flags come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ENGINE_ROOT = Path(__file__).resolve().parent.parent / "engine"

_ISA_FLAGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "neon": ("aarch64", ()),
    "dotprod": ("aarch64", ("-march=armv8.2-a+dotprod",)),
    "i8mm": ("aarch64", ("-march=armv8.2-a+dotprod+i8mm",)),
    "avx2": ("x86_64", ("-mavx2", "-mfma")),
    "avx512vnni": ("x86_64", ("-mavx512f", "-mavx512bw", "-mavx512vnni")),
}
"""Suffix of a kernel's file name: the architecture it is for, and the flags it needs beyond the baseline."""

_RUNTIME_FREE = ("kernels", "modulated", "job/noise.cpp", "image/inspection.cpp", "state/crc32c.cpp")


@dataclass(frozen=True)
class Unit:
    """One file to compile.

    Args:
        path: the source.
        flags: for this file alone.
    """

    path: Path
    flags: tuple[str, ...]

    @property
    def name(self) -> str:
        """Path below the engine's root, with forward slashes."""
        return self.path.relative_to(ENGINE_ROOT).as_posix()


def engine_units(arch: str) -> tuple[Unit, ...]:
    """Every file of the engine for one architecture, in a fixed order."""
    return tuple(unit for unit in _all_units(arch) if not unit.name.startswith("selftest/"))


def selftest_units(arch: str) -> tuple[Unit, ...]:
    """The files of the self-test: what needs no ExecuTorch."""
    return tuple(unit for unit in _all_units(arch) if unit.name.startswith(("selftest/", *_RUNTIME_FREE)))


def _all_units(arch: str) -> list[Unit]:
    units = []
    for path in sorted(ENGINE_ROOT.rglob("*.cpp")):
        wanted, flags = _ISA_FLAGS.get(path.stem.rsplit("_", 1)[-1], (arch, ()))
        if wanted == arch:
            optimization = "-O3" if path.parent.name in {"kernels", "modulated"} else "-O2"
            units.append(Unit(path, (optimization, *flags)))
    return units
