"""Compiler commands and their execution: two files at a time, errors that show what the compiler said."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import ToolchainError
from edge.toolchain.runtime import EXECUTORCH_VERSION, LIBRARIES, Runtime, native_arch
from edge.toolchain.sources import ENGINE_ROOT, Unit

if TYPE_CHECKING:
    from boards import Board

Progress = Callable[[int, int, str], None]
"""Called with: files done, files in all, the file just done."""

JOBS = 2
_COMPILE_SECONDS = 600
_SHOWN_LINES = 20

COMMON_FLAGS = (
    "-std=c++17",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffp-contract=off",
    # Values are untouched; only floating-point exception flags, which nobody reads, may differ.
    "-fno-trapping-math",
    "-fno-exceptions",
    "-fno-rtti",
    "-DNDEBUG",
    "-DC10_USING_CUSTOM_GENERATED_MACROS",
    f'-DMODIFF_EXECUTORCH_VERSION="{EXECUTORCH_VERSION}"',
)
_SANITIZER_FLAGS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-fno-omit-frame-pointer")


@dataclass(frozen=True)
class Target:
    """A machine to build for, and the compiler that builds for it.

    Args:
        arch: aarch64 or x86_64.
        compiler: the command.
        compiler_version: its first line of ``--version``.
    """

    arch: str
    compiler: str
    compiler_version: str


@dataclass(frozen=True)
class Compilation:
    """What is built, from what, how.

    Args:
        target: for which machine.
        units: the files.
        runtime: ExecuTorch, or None for programs without it.
        sanitize: with sanitizers, and slower.
        symbols: keep the names of functions, which take no part in the run.
    """

    target: Target
    units: tuple[Unit, ...]
    runtime: Runtime | None
    sanitize: bool
    symbols: bool = False

    def stable_command(self, unit: Unit) -> list[str]:
        """The compile command without this machine's paths: what a cache may depend on."""
        sanitizers = _SANITIZER_FLAGS if self.sanitize else ()
        return [self.target.compiler, *COMMON_FLAGS, *unit.flags, *sanitizers, unit.name]

    def stable_link_command(self) -> list[str]:
        """The link command without this machine's paths."""
        # The C++ runtime goes into the engine: a board's own may be older than the compiler's.
        strip = () if self.symbols else ("-s",)
        runtime = _SANITIZER_FLAGS if self.sanitize else ("-static-libstdc++", "-static-libgcc", *strip)
        libraries = [f"-l:{name}" for name in LIBRARIES] if self.runtime else []
        return [self.target.compiler, *runtime, "-Wl,-rpath,$ORIGIN", "-Wl,--no-as-needed", *libraries]

    def include_flags(self) -> list[str]:
        """Where headers lie; the runtime's are not ours to warn about."""
        flags = ["-I", str(ENGINE_ROOT)]
        if self.runtime:
            types = self.runtime.include_folder / "executorch/runtime/core/portable_type/c10"
            flags += ["-isystem", str(self.runtime.include_folder), "-isystem", str(types)]
        return flags


def resolve_target(target: str | Board) -> Target:
    """Finds the compiler for ``"host"``, an architecture, or a board.

    Raises:
        ToolchainError: an architecture the kit does not build for, or its compiler is not installed.
    """
    arch = target if isinstance(target, str) else target.cpu.arch
    if arch in {"host", "native"}:
        arch = native_arch()
    if arch not in {"aarch64", "x86_64"}:
        raise ToolchainError(f"cannot build for {arch}", mend="targets are host, aarch64 and x86_64")
    native = arch == native_arch()
    compiler = "g++" if native else f"{arch.replace('_', '-')}-linux-gnu-g++"
    package = "g++" if native else f"g++-{arch.replace('_', '-')}-linux-gnu"
    if shutil.which(compiler) is None:
        raise ToolchainError(f"{compiler} is not installed", mend=f"sudo apt install {package}")
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True, timeout=60)
    return Target(arch, compiler, version.stdout.splitlines()[0])


def compile_and_link(work: Compilation, objects: Path, output: Path, progress: Progress | None) -> None:
    """Compiles every unit into ``objects`` and links them to ``output``.

    Raises:
        ToolchainError: the compiler refused a file; the message ends with what it said.
    """
    total = len(work.units) + 1
    places = {unit: objects / (unit.name.replace("/", "-") + ".o") for unit in work.units}
    with ThreadPoolExecutor(JOBS) as pool:
        pending = {pool.submit(_compile, work, unit, place): unit for unit, place in places.items()}
        try:
            for done, future in enumerate(as_completed(pending), start=1):
                future.result()
                if progress is not None:
                    progress(done, total, pending[future].name)
        except ToolchainError:
            pool.shutdown(cancel_futures=True)
            raise
    compiler, *rest = work.stable_link_command()
    search = ["-L", str(work.runtime.library_folder)] if work.runtime else []
    run_compiler([compiler, *map(str, places.values()), *search, *rest, "-o", str(output)], "linking")
    if progress is not None:
        progress(total, total, output.name)


def _compile(work: Compilation, unit: Unit, place: Path) -> None:
    compiler, *flags, _ = work.stable_command(unit)
    run_compiler([compiler, *flags, *work.include_flags(), "-c", str(unit.path), "-o", str(place)], unit.name)


def run_compiler(command: list[str], where: str) -> None:
    """Runs one compiler command.

    Raises:
        ToolchainError: it failed or hung.
    """
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_COMPILE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"{command[0]} took more than {_COMPILE_SECONDS} s", where=where) from error
    if done.returncode != 0:
        said = "\n".join(done.stderr.strip().splitlines()[:_SHOWN_LINES])
        raise ToolchainError(f"{command[0]} failed:\n{said}", where=where)
