"""The toolchain: what it builds, when it builds again, and how it fails."""

from __future__ import annotations

import os
import shutil
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge import toolchain
from edge.errors import ToolchainError
from edge.toolchain import build_engine, build_selftest, compilation, lint, runtime, sources


def test_an_engine_is_complete_and_cached() -> None:
    build = build_engine("host")
    assert build.engine.name == "modiff-engine"
    assert [file.role for file in build.files] == ["engine", "library", "library", "library"]
    assert {file.path.name for file in build.files} == {path.name for path in build.folder.iterdir()}
    assert build.engine.stat().st_mode & stat.S_IXUSR
    before = build.engine.stat().st_mtime_ns
    seen: list[str] = []
    again = build_engine("host", progress=lambda _done, _of, what: seen.append(what))
    assert again == build
    assert again.engine.stat().st_mtime_ns == before
    assert seen == []


def test_a_board_names_its_architecture() -> None:
    from boards import load_board

    assert compilation.resolve_target(load_board("host")) == compilation.resolve_target("host")


def test_a_changed_source_builds_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "engine"
    shutil.copytree(sources.ENGINE_ROOT, root)
    for module in (toolchain, sources, compilation):
        monkeypatch.setattr(module, "ENGINE_ROOT", root)
    cache = tmp_path / "cache"
    first = build_selftest("host", cache)
    assert build_selftest("host", cache) == first
    source = root / "state" / "crc32c.cpp"
    source.write_text(source.read_text() + "\n// changed\n")
    changed = build_selftest("host", cache)
    assert changed != first
    header = root / "job" / "noise.h"
    header.write_text(header.read_text() + "\n// changed\n")
    assert build_selftest("host", cache) not in {first, changed}
    source.write_text("int broken(")
    with pytest.raises(ToolchainError, match=r"state/crc32c.cpp: g\+\+ failed") as caught:
        build_selftest("host", cache)
    assert "error: expected" in str(caught.value)
    assert caught.value.exit_code == 6
    # A failed build leaves nothing that looks like a build.
    assert sum(path.name.startswith("modiff-selftest") for path in (cache / "engines").iterdir()) == 3
    assert len(list((cache / "engines").iterdir())) == 3


def test_of_builds_in_parallel_one_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def compile_slowly(_work: object, _objects: Path, program: Path, _progress: object) -> None:
        compiled.append(program)
        time.sleep(0.3)
        program.touch()

    monkeypatch.setattr(toolchain, "compile_and_link", compile_slowly)
    with ThreadPoolExecutor(2) as pool:
        built = set(pool.map(lambda _: build_selftest("host", tmp_path), range(2)))
    assert len(compiled) == len(built) == 1
    assert built.pop().is_file()


@pytest.mark.parametrize(
    ("target", "package"), [("x86_64", "g++"), ("aarch64", "g++-aarch64-linux-gnu")], ids=["native", "cross"]
)
def test_a_missing_compiler_names_its_package(
    target: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if runtime.native_arch() != "x86_64":
        pytest.skip("written for an x86-64 host")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match="is not installed") as caught:
        compilation.resolve_target(target)
    assert str(caught.value).endswith(f"(sudo apt install {package})")


def test_a_missing_clang_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match="apt install clang"):
        lint.lint(tmp_path)


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(ToolchainError, match="cannot build for riscv64"):
        build_engine("riscv64")


def test_a_download_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    other = "aarch64" if runtime.native_arch() == "x86_64" else "x86_64"
    with pytest.raises(ToolchainError, match=f"cannot download the runtime for {other}"):
        runtime.find_runtime(other, tmp_path)
    assert not list((tmp_path / "runtime").iterdir())


def test_a_runtime_without_its_libraries_is_refused(tmp_path: Path) -> None:
    other = "aarch64" if runtime.native_arch() == "x86_64" else "x86_64"
    (tmp_path / "runtime" / f"executorch-{runtime.EXECUTORCH_VERSION}-{other}").mkdir(parents=True)
    with pytest.raises(ToolchainError, match=r"the runtime lacks libexecutorch\.so"):
        runtime.find_runtime(other, tmp_path)


def test_kernels_are_built_for_their_instruction_set_only() -> None:
    arm = {unit.path.stem: unit.flags for unit in sources.engine_units("aarch64")}
    intel = {unit.path.stem: unit.flags for unit in sources.engine_units("x86_64")}
    assert "-march=armv8.2-a+dotprod" in arm["conv_6x16_dotprod"]
    assert arm["conv_2x16_neon"] == ("-O3",)
    assert "-mavx2" in intel["conv_4x16_avx2"]
    assert "-mavx512vnni" not in intel["conv_4x16_avx2"]
    assert not {name for name in intel if name.endswith(("neon", "dotprod"))}
    assert "-mavx512vnni" in intel["conv_12x16_avx512vnni"]
    assert not {"conv_4x16_avx2", "conv_12x16_avx512vnni"} & set(arm)
    assert "-ffp-contract=off" in compilation.COMMON_FLAGS
