"""Builds the C++ engine for a board: finds the compiler and the runtime, compiles, caches by content.

``build_engine`` is what the rest of the kit calls; ``python -m edge.toolchain`` builds and lints by hand.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock

from edge.cache import cache_folder
from edge.toolchain.compilation import Compilation, Progress, compile_and_link, resolve_target
from edge.toolchain.runtime import LIBRARIES, Runtime, find_runtime
from edge.toolchain.sources import ENGINE_ROOT, engine_units, selftest_units

if TYPE_CHECKING:
    from boards import Board

__all__ = ["EngineBuild", "EngineFile", "Progress", "build_engine", "build_selftest"]

ENGINE_NAME = "modiff-engine"
SELFTEST_NAME = "modiff-selftest"


@dataclass(frozen=True)
class EngineFile:
    """One file that the device needs.

    Args:
        path: where it lies on this machine.
        role: the engine itself, or a library that it loads from its own folder.
        executable: whether the device must set the executable bit.
    """

    path: Path
    role: Literal["engine", "library"]
    executable: bool


@dataclass(frozen=True)
class EngineBuild:
    """A finished engine.

    Args:
        folder: holds exactly ``files``.
        arch: of the machine it runs on.
        files: the engine first, then its libraries.
    """

    folder: Path
    arch: str
    files: tuple[EngineFile, ...]

    @property
    def engine(self) -> Path:
        """The executable."""
        return self.files[0].path


def build_engine(
    target: str | Board,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    *,
    sanitize: bool = False,
    symbols: bool = False,
) -> EngineBuild:
    """Builds the engine, or takes it from the cache when sources, flags, compiler and runtime are the same.

    Args:
        target: ``"host"``, ``"aarch64"``, ``"x86_64"``, or a board.
        cache_dir: where builds and the runtime are kept; the user's cache folder by default.
        progress: called with (done, of, what) as files are compiled.
        sanitize: with the address and undefined-behaviour sanitizers; for tests on this machine.
        symbols: with the names of functions, for those who measure; the code is the same.

    Raises:
        ToolchainError: no compiler, no runtime, or a source that does not compile.
    """
    cache = cache_dir or cache_folder()
    resolved = resolve_target(target)
    runtime = find_runtime(resolved.arch, cache)
    work = Compilation(resolved, engine_units(resolved.arch), runtime, sanitize=sanitize, symbols=symbols)
    folder = _cached(cache, work, ENGINE_NAME, progress, runtime)
    libraries = tuple(EngineFile(folder / name, "library", executable=False) for name in LIBRARIES)
    engine = EngineFile(folder / ENGINE_NAME, "engine", executable=True)
    return EngineBuild(folder, resolved.arch, (engine, *libraries))


def build_selftest(target: str | Board, cache_dir: Path | None = None, *, sanitize: bool = False) -> Path:
    """Builds the program that runs kernels on cases from its stdin (``engine/selftest``); for the tests.

    Raises:
        ToolchainError: as ``build_engine``.
    """
    resolved = resolve_target(target)
    work = Compilation(resolved, selftest_units(resolved.arch), None, sanitize=sanitize)
    return _cached(cache_dir or cache_folder(), work, SELFTEST_NAME, None, None) / SELFTEST_NAME


def _cached(cache: Path, work: Compilation, name: str, progress: Progress | None, runtime: Runtime | None) -> Path:
    """The folder of a finished build, built now if it is not there; a build appears whole or not at all."""
    folder = cache / "engines" / f"{name}-{work.target.arch}-{_build_key(work)[:20]}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        FileLock(cache / "engines.lock"),  # one at a time, each takes all cores; who waited may find it built
        tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as scratch,
    ):
        if folder.is_dir():
            return folder
        output = Path(scratch) / "output"
        objects = Path(scratch) / "objects"
        output.mkdir()
        objects.mkdir()
        compile_and_link(work, objects, output / name, progress)
        if runtime is not None:
            for library in LIBRARIES:
                shutil.copyfile(runtime.library_folder / library, output / library)
        output.rename(folder)
    return folder


def _build_key(work: Compilation) -> str:
    """SHA-256 over everything that decides the build's bytes."""
    digest = hashlib.sha256()
    for header in sorted(ENGINE_ROOT.rglob("*.h")):
        digest.update(str(header.relative_to(ENGINE_ROOT)).encode() + b"\0" + header.read_bytes())
    for unit in work.units:
        digest.update(" ".join(work.stable_command(unit)).encode() + b"\0" + unit.path.read_bytes())
    digest.update(" ".join(work.stable_link_command()).encode())
    digest.update(work.target.compiler_version.encode())
    digest.update(work.runtime.digest.encode() if work.runtime else b"")
    return digest.hexdigest()
