"""ONNX Runtime: the network exported by torch.onnx, in float32 and quantized as its own tool does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from edge.cache import cache_folder, content_key, sources_key
from tests.bench.models import model_named

Kind = Literal["fp32", "int8"]
CALIBRATION_TIMES = (100, 500, 900)


def convert(model_name: str, kind: Kind) -> Path:
    """The network as an ``.onnx`` file, from the cache if it was made before."""
    sources = sources_key([Path(__file__), Path(__file__).parents[1] / "models.py"])
    folder = cache_folder() / "bench" / f"onnx-{content_key(model_name, sources)}"
    path = folder / f"{kind}.onnx"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "fp32":
        model = model_named(model_name)
        assert isinstance(model.denoiser, nn.Module)
        inputs = (torch.zeros(1, *model.sample_shape), torch.tensor([500]))
        torch.onnx.export(
            model.denoiser, inputs, str(path), input_names=["x", "t"], dynamo=True, external_data=False, verbose=False
        )
        return path
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    float_path = convert(model_name, "fp32")
    prepared = folder / "prepared.onnx"
    quant_pre_process(str(float_path), str(prepared), skip_symbolic_shape=True)
    shape = model_named(model_name).sample_shape

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._items = _calibration(shape)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._items, None)

    options: dict[str, Any] = {"per_channel": True, "weight_type": QuantType.QInt8}
    # Of the other operators, some share a weight's parameters in these networks, which its quantizer refuses.
    quantize_static(str(prepared), str(path), Reader(), op_types_to_quantize=["Conv", "Gemm", "MatMul"], **options)
    return path


def _calibration(shape: tuple[int, int, int]) -> Iterator[dict[str, Any]]:
    generator = np.random.default_rng(1)
    for time in CALIBRATION_TIMES:
        x = generator.standard_normal((1, *shape)).astype(np.float32)
        yield {"x": x, "t": np.array([time], dtype=np.int64)}
