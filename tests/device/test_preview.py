from __future__ import annotations

import struct

from edge.device.preview import shrink
from firmware_bridge.limits import PREVIEW_CHANNELS, PREVIEW_SIDE


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def test_a_small_image_stays_as_it_is() -> None:
    image = floats(-1, -2, 0, 1, 5, float("nan"))
    assert shrink(image, (1, 2, 3)) == ((1, 2, 3), bytes([0, 0, 128, 255, 255, 0]))


def test_of_a_large_image_every_nth_pixel_of_three_channels() -> None:
    channels, height, width = 4, 130, 65
    image = floats(*(number % 255 / 127.5 - 1 for number in range(channels * height * width)))
    (planes, rows, columns), pixels = shrink(image, (channels, height, width))
    assert (planes, rows, columns) == (3, 44, 22)
    assert rows <= PREVIEW_SIDE >= columns
    assert planes == PREVIEW_CHANNELS
    assert pixels[0] == 0
    assert pixels[1] == 3
    assert pixels[columns] == 3 * width % 255
