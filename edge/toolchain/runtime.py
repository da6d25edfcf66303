"""The ExecuTorch runtime of an architecture: the installed wheel's, or that of a wheel for another machine.

The wheels carry shared libraries and headers; the wheel for aarch64 is the device's runtime.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from edge.errors import ToolchainError

EXECUTORCH_VERSION = "1.5.1"
LIBRARIES = ("libexecutorch.so", "libexecutorch_kernels_optimized.so", "libexecutorch_threadpool.so")
"""What the engine loads; the names are the same in every wheel."""

_WHEEL_PLATFORM = {"aarch64": "manylinux_2_28_aarch64", "x86_64": "manylinux_2_28_x86_64"}
_DOWNLOAD_SECONDS = 900


@dataclass(frozen=True)
class Runtime:
    """Where headers and libraries lie.

    Args:
        include_folder: the wheel's ``include``.
        library_folder: the wheel's ``lib``.
        digest: SHA-256 over the libraries, in hexadecimal.
    """

    include_folder: Path
    library_folder: Path
    digest: str


def find_runtime(arch: str, cache: Path) -> Runtime:
    """The runtime for ``arch``, downloaded into ``cache`` when it is not this machine's.

    Raises:
        ToolchainError: the wheel is missing, of another version, or incomplete.
    """
    root = installed_root() if arch == native_arch() else _downloaded_root(arch, cache)
    missing = [name for name in LIBRARIES if not (root / "lib" / name).is_file()]
    if missing:
        raise ToolchainError(
            f"the runtime lacks {', '.join(missing)}",
            where=str(root),
            mend=f"reinstall executorch=={EXECUTORCH_VERSION} from PyPI",
        )
    digest = hashlib.sha256()
    for name in LIBRARIES:
        digest.update((root / "lib" / name).read_bytes())
    return Runtime(root / "include", root / "lib", digest.hexdigest())


def native_arch() -> str:
    """This machine's architecture, named as boards name it."""
    machine = platform.machine()
    return {"arm64": "aarch64", "AMD64": "x86_64"}.get(machine, machine)


def installed_root() -> Path:
    """The folder of the installed ``executorch``: this machine's libraries and headers.

    Raises:
        ToolchainError: it is missing, of another version, or incomplete.
    """
    mend = f"pip install executorch=={EXECUTORCH_VERSION}"
    try:
        version = importlib.metadata.version("executorch")
    except importlib.metadata.PackageNotFoundError as error:
        raise ToolchainError("executorch is not installed", mend=mend) from error
    if version.split("+")[0] != EXECUTORCH_VERSION:
        raise ToolchainError(f"executorch {version} is installed, the engine is for {EXECUTORCH_VERSION}", mend=mend)
    spec = importlib.util.find_spec("executorch")
    if spec is None or not spec.submodule_search_locations:
        raise ToolchainError("executorch is installed without its files", mend=mend)
    return Path(next(iter(spec.submodule_search_locations)))


def _downloaded_root(arch: str, cache: Path) -> Path:
    """The folder ``executorch`` of the wheel for ``arch``: headers and the libraries, nothing else."""
    folder = cache / "runtime" / f"executorch-{EXECUTORCH_VERSION}-{arch}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as scratch:
            wheel = download_wheel(arch, Path(scratch))
            unpacked = Path(scratch) / "unpacked"
            _unpack(wheel, unpacked)
            try:
                unpacked.rename(folder)
            except OSError:
                # Another process got there first.
                if not folder.is_dir():
                    raise
    return folder / "executorch"


def download_wheel(arch: str, folder: Path) -> Path:
    """Fetches the wheel for ``arch`` into ``folder``.

    Raises:
        ToolchainError: there is none, or the download failed.
    """
    if arch not in _WHEEL_PLATFORM:
        raise ToolchainError(f"there is no ExecuTorch wheel for {arch}", mend=f"known: {', '.join(_WHEEL_PLATFORM)}")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--dest", str(folder), "--platform", _WHEEL_PLATFORM[arch], "--only-binary=:all:", "--no-deps"]
    command += [f"executorch=={EXECUTORCH_VERSION}"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS)
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().splitlines()[-1] if error.stderr.strip() else "pip gave no reason"
        raise ToolchainError(
            f"cannot download the runtime for {arch}: {reason}", mend="check the connection to PyPI, then run again"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(
            f"the download of the runtime for {arch} took more than {_DOWNLOAD_SECONDS} s", mend="run again"
        ) from error
    return next(folder.glob("executorch-*.whl"))


def _unpack(wheel: Path, folder: Path) -> None:
    wanted = {f"executorch/lib/{name}" for name in LIBRARIES}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name in wanted or (name.startswith("executorch/include/") and name.endswith(".h")):
                place = folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as packed, place.open("wb") as out:
                    shutil.copyfileobj(packed, out)
