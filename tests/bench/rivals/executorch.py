"""ExecuTorch with XNNPACK: the same network lowered as its own documentation says, in float32, float16 and static INT8.

The runner (``runner.cpp``) is linked against the libraries of the PyPI wheel, of this machine or of aarch64.
"""

from __future__ import annotations

import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edge.cache import cache_folder, content_key, sources_key
from edge.toolchain.compilation import resolve_target
from edge.toolchain.runtime import EXECUTORCH_VERSION, download_wheel, installed_root, native_arch
from tests.bench.models import model_named

Kind = Literal["fp32", "fp16", "int8"]
KINDS: tuple[Kind, ...] = ("fp32", "fp16", "int8")
CALIBRATION_TIMES = (100, 300, 500, 700, 900)
RUNNER = Path(__file__).with_name("runner.cpp")
_LIBRARIES = ("executorch", "kernels_optimized", "kernels_quantized", "backend_xnnpack", "threadpool")


def lower(model_name: str, kind: Kind) -> Path:
    """The network as a ``.pte`` with method ``forward(x, t)``, from the cache if it was made before."""
    sources = sources_key([Path(__file__), Path(__file__).parents[1] / "models.py"])
    path = cache_folder() / "bench" / f"xnnpack-{content_key(model_name, kind, sources, EXECUTORCH_VERSION)}.pte"
    if path.is_file():
        return path
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    model = model_named(model_name)
    denoiser = model.denoiser
    assert isinstance(denoiser, nn.Module)
    x, t = torch.zeros(1, *model.sample_shape), torch.tensor([500])
    if kind == "fp16":
        denoiser, x = denoiser.half(), x.half()
    with torch.no_grad():
        exported: Any = torch.export.export(denoiser, (x, t))
        if kind == "int8":
            exported = torch.export.export(_quantized(exported.module(), tuple(x.shape)), (x, t))
        lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".part")
    fresh.write_bytes(lowered.buffer)
    fresh.rename(path)
    return path


def _quantized(module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Static post-training quantization (PT2E): weights per channel, activations per tensor."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared: Any = prepare_pt2e(module, quantizer)
    generator = torch.Generator().manual_seed(1)
    for time in CALIBRATION_TIMES:
        x: Tensor = torch.randn(shape, generator=generator)
        prepared(x, torch.tensor([time]))
    converted: nn.Module = convert_pt2e(prepared)
    return converted


def build_runner(target: str) -> Path:
    """The runner for "host" or "aarch64", beside nothing: it finds the wheel's libraries where they lie."""
    resolved = resolve_target(target)
    root = installed_root() if resolved.arch == native_arch() else _unpacked(resolved.arch)
    program = cache_folder() / "bench" / f"runner-{resolved.arch}-{sources_key([RUNNER])}-{EXECUTORCH_VERSION}"
    if program.is_file():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    includes = (root / "include", root / "include/executorch/runtime/core/portable_type/c10")
    names = [name if name == "executorch" else f"executorch_{name}" for name in _LIBRARIES]
    with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
        fresh = Path(scratch) / program.name
        command = [resolved.compiler, "-O2", "-std=c++17", "-DC10_USING_CUSTOM_GENERATED_MACROS"]
        command += [word for folder in includes for word in ("-isystem", str(folder))]
        command += [str(RUNNER), "-L", str(root / "lib"), f"-Wl,-rpath,{root / 'lib'}", "-Wl,--no-as-needed"]
        subprocess.run([*command, *(f"-l{name}" for name in names), "-o", str(fresh)], check=True, timeout=300)
        fresh.rename(program)
    return program


def runner_library(target: str) -> Path:
    """The ``libexecutorch.so`` that the runner loads."""
    arch = resolve_target(target).arch
    root = installed_root() if arch == native_arch() else _unpacked(arch)
    return root / "lib" / "libexecutorch.so"


def _unpacked(arch: str) -> Path:
    """The wheel of another machine, all libraries and headers of it."""
    folder = cache_folder() / "bench" / f"executorch-{EXECUTORCH_VERSION}-{arch}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            with zipfile.ZipFile(download_wheel(arch, Path(scratch))) as archive:
                wanted = [n for n in archive.namelist() if n.startswith(("executorch/lib/", "executorch/include/"))]
                archive.extractall(Path(scratch) / "wheel", wanted)
            (Path(scratch) / "wheel").rename(folder)
    return folder / "executorch"
