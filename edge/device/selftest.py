"""The golden self-test: a bundle brings an input and the output its maker saw; the board must agree.

Pure Python on purpose (no numpy on the device); a 3x512x512 image takes a quarter of a second.
"""

from __future__ import annotations

import logging
import math
import sys
from array import array
from typing import TYPE_CHECKING

from edge.device.errors import SelfTestFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.device.engine_process import EngineProcess

log = logging.getLogger(__name__)
PEAK = 2.0


def floats(data: bytes) -> array[float]:
    """Float32 little endian, as the wire and the files have it."""
    values = array("f")
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def psnr(a: bytes, b: bytes) -> float:
    """Peak signal-to-noise ratio in dB of two float32 LE images in [-1, 1] (peak 2.0).

    Infinite when equal; minus infinity when anything is not finite or the sizes differ.
    """
    if len(a) != len(b) or len(a) % 4 or not a:
        return -math.inf
    squares = math.fsum((x - y) * (x - y) for x, y in zip(floats(a), floats(b), strict=True))
    if not math.isfinite(squares):
        return -math.inf
    return math.inf if squares == 0.0 else 10 * math.log10(PEAK * PEAK * (len(a) // 4) / squares)


def run(
    engine: EngineProcess, *, seed: int, start: int, golden: bytes, least: float, on_step: Callable[[int, int], None]
) -> float:
    """Denoise an all-zero image from step ``start``, all conditions zero, and compare.

    Args:
        engine: a fresh engine of the bundle under test.
        seed: of the noise.
        start: the first sampler step, steps-3 as a rule.
        golden: float32 LE [C,H,W].
        least: the PSNR in dB that passes.
        on_step: called with (steps done, steps in all).

    Returns:
        The PSNR in dB.

    Raises:
        SelfTestFailed: another size, or a PSNR below ``least``.
    """
    channels, height, width = engine.info.shape
    size = 4 * channels * height * width
    if len(golden) != size:
        raise SelfTestFailed(
            f"the golden output has {len(golden)} bytes, the program's images {size}", mend="build the bundle anew"
        )
    engine.begin(0, seed, start, bytes(size), conditions=bytes(engine.info.condition_bytes))
    left = engine.info.steps - start
    total = left
    while left:
        left = engine.step(0).left
        on_step(total - left, total)
    output = engine.result(0).image
    engine.release(0)
    measured = psnr(output, golden)
    if not measured >= least:
        raise SelfTestFailed(
            f"{measured:.1f} dB against the golden output, {least:.1f} dB are needed",
            mend="the board computes otherwise than the host: build the bundle for this board and deploy it again",
        )
    return measured
