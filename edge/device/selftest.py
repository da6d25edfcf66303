"""The golden self-test: a bundle brings an input and the output its maker saw; the board must agree.

Where the bundle says that its program is exact, every bit must be the same; else the PSNR must suffice.

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

    from edge.bundle import Golden
    from edge.device.engine import Engine

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


def output(engine: Engine, test: Golden, on_step: Callable[[int, int], None] = lambda *_: None) -> bytes:
    """What an engine makes of the self-test: an all-zero image denoised from ``test.start``, all conditions zero.

    Args:
        engine: fresh; its slot 0 is used and released.
        test: seed and start.
        on_step: called with (steps done, steps in all).

    Returns:
        float32 LE [C, H, W].
    """
    channels, height, width = engine.info.shape
    engine.begin(
        0, test.seed, test.start, bytes(4 * channels * height * width), conditions=bytes(engine.info.condition_bytes)
    )
    left = total = engine.info.steps - test.start
    while left:
        left = engine.step(0).left
        on_step(total - left, total)
    image = engine.result(0).image
    engine.release(0)
    return image


def run(engine: Engine, test: Golden, golden: bytes, on_step: Callable[[int, int], None]) -> float:
    """Run the self-test and compare: bit for bit where it is exact, else by PSNR.

    Args:
        engine: a fresh engine of the bundle under test.
        test: the bundle's.
        golden: float32 LE [C, H, W].
        on_step: called with (steps done, steps in all).

    Returns:
        The PSNR in dB; infinite where every bit is the same.

    Raises:
        SelfTestFailed: another size, a bit that differs in an exact test, or a PSNR below ``test.min_psnr_db``.
    """
    channels, height, width = engine.info.shape
    size = 4 * channels * height * width
    if len(golden) != size:
        raise SelfTestFailed(
            f"the golden output has {len(golden)} bytes, the program's images {size}", mend="build the bundle anew"
        )
    found = output(engine, test, on_step)
    if found == golden:
        return math.inf
    measured = psnr(found, golden)
    if test.exact:
        differ = sum(found[i : i + 4] != golden[i : i + 4] for i in range(0, size, 4))
        raise SelfTestFailed(
            f"{differ} of {size // 4} values are not the golden output's, bit for bit ({measured:.1f} dB)",
            mend="the board computes otherwise than the host, or the bundle was made by another engine: build it anew",
        )
    if not measured >= test.min_psnr_db:
        raise SelfTestFailed(
            f"{measured:.1f} dB against the golden output, {test.min_psnr_db:.1f} dB are needed",
            mend="the board computes otherwise than the host: build the bundle for this board and deploy it again",
        )
    return measured
