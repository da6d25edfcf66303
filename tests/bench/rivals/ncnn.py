"""ncnn: the network traced, converted by pnnx, run through ncnn's Python wheel.

Its INT8 is made by ``ncnn2table`` and ``ncnn2int8``, which no wheel carries, so it is not measured.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch
from torch import Tensor, nn

from edge.cache import cache_folder, content_key, sources_key
from tests.bench.instructions import BenchError
from tests.bench.models import model_named

NO_INT8 = "the wheels carry neither ncnn2table nor ncnn2int8"


class _AtTime(nn.Module):
    """The denoiser at one time step: ncnn has no integer inputs."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.register_buffer("time", torch.tensor([500]))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.denoiser(x, self.time)
        return result


def convert(model_name: str) -> Path:
    """The folder with ``net.ncnn.param`` and ``net.ncnn.bin``.

    Raises:
        BenchError: pnnx does not convert the network.
    """
    folder = cache_folder() / "bench" / f"ncnn-{content_key(model_name, sources_key([Path(__file__)]))}"
    if (folder / "net.ncnn.bin").is_file():
        return folder
    import pnnx

    folder.mkdir(parents=True, exist_ok=True)
    model = model_named(model_name)
    assert isinstance(model.denoiser, nn.Module)
    x = torch.zeros(1, *model.sample_shape)
    with torch.no_grad():
        traced = torch.jit.trace(_AtTime(model.denoiser).eval(), (x,), check_trace=False)  # type: ignore[no-untyped-call]
    traced.save(str(folder / "net.pt"))
    shape = ",".join(map(str, x.shape))
    words = [pnnx.EXEC_PATH, "net.pt", f"inputshape=[{shape}]f32", "fp16=0"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=900)
    if not (folder / "net.ncnn.bin").is_file():
        raise BenchError(f"pnnx cannot convert the network: {done.stderr.strip()[-300:]}", where="ncnn")
    return folder
