"""A job's image on its way, made small enough to send beside what matters more.

Pure Python (no numpy on the device): a preview has at most 3 x 64 x 64 pixels, a few milliseconds.
"""

from __future__ import annotations

from edge.device.selftest import floats
from firmware_bridge.limits import PREVIEW_CHANNELS, PREVIEW_SIDE


def shrink(image: bytes, shape: tuple[int, int, int]) -> tuple[tuple[int, int, int], bytes]:
    """Every n-th pixel of the first channels, n as small as fits.

    Args:
        image: float32 LE [C, H, W], about -1 to 1.
        shape: (C, H, W).

    Returns:
        Its own (C, H, W), and u8 pixels: 0 for -1 or less and for NaN, 255 for 1 or more.
    """
    channels, height, width = shape
    values, pace = floats(image), -(-max(height, width) // PREVIEW_SIDE)
    planes, rows, columns = range(min(channels, PREVIEW_CHANNELS)), range(0, height, pace), range(0, width, pace)
    pixels = bytes(
        _level(values[(plane * height + row) * width + column])
        for plane in planes
        for row in rows
        for column in columns
    )
    return (len(planes), len(rows), len(columns)), pixels


def _level(value: float) -> int:
    return round((min(value, 1.0) + 1.0) * 127.5) if value > -1.0 else 0
