"""A rival that has a Python wheel, as a process that speaks the lines of ``runner.cpp``.

It imports nothing that the rival does not need, so that its peak memory is its own, Python's and numpy's.

python -m tests.bench.rivals.serve onnx-fp32|onnx-int8|ncnn-fp32 FILE THREADS CHANNELS SIZE
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.instructions import BenchError


def main(kind: str, file: str, threads: int, shape: tuple[int, int, int]) -> None:
    """Answer each line on stdin with the nanoseconds of one run; at the end with the peak in KiB."""
    run = _runner(kind, Path(file), threads, shape)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        started = time.perf_counter_ns()
        run()
        sys.stdout.write(f"{time.perf_counter_ns() - started}\n")
        sys.stdout.flush()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    sys.stdout.write(status.partition("VmHWM:")[2].split()[0] + "\n")


def _runner(kind: str, file: Path, threads: int, shape: tuple[int, int, int]) -> Callable[[], object]:
    if kind.startswith("onnx"):
        opened = session(file, threads)
        inputs = {"x": np.zeros((1, *shape), dtype=np.float32), "t": np.array([500], dtype=np.int64)}
        return lambda: opened.run(None, inputs)
    return network(file, threads, shape)


def session(path: Path, threads: int) -> Any:  # noqa: ANN401 - the package carries no types
    """An inference session with so many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def network(folder: Path, threads: int, shape: tuple[int, int, int]) -> Callable[[], object]:
    """A function that runs the network once.

    Raises:
        BenchError: ncnn does not run it.
    """
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    if net.load_param(str(folder / "net.ncnn.param")) or net.load_model(str(folder / "net.ncnn.bin")):
        raise BenchError("ncnn cannot load the network", where=str(folder))
    x = np.zeros(shape, dtype=np.float32)

    def run() -> object:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(x))
        status, result = extractor.extract("out0")
        if status:
            raise BenchError(f"ncnn failed with status {status}", where=str(folder))
        return np.array(result)

    return run


if __name__ == "__main__":
    _, kind_word, file_word, threads_word, channels, size = sys.argv
    main(kind_word, file_word, int(threads_word), (int(channels), int(size), int(size)))
