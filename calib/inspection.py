"""Where an image differs from its reconstruction: the anomaly map and its score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calib.errors import CalibrationError

if TYPE_CHECKING:
    import numpy.typing as npt

BOX_SIDE = 5


def anomaly_map(image: npt.NDArray[np.float32], reconstruction: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mean absolute difference over the channels, smoothed by a 5x5 box.

    Outside the image its nearest edge pixel counts (clamp to edge).

    Args:
        image: ``[C, H, W]``, in [-1, 1].
        reconstruction: the same shape.

    Returns:
        float32 ``[H, W]``.

    Raises:
        CalibrationError: other shapes.
    """
    if image.ndim != 3 or image.shape != reconstruction.shape:
        raise CalibrationError(
            f"image {image.shape} and reconstruction {reconstruction.shape}", mend="both must be [C, H, W]"
        )
    difference = np.abs(reconstruction.astype(np.float64) - image).mean(axis=0)
    padded = np.pad(difference, BOX_SIDE // 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (BOX_SIDE, BOX_SIDE))
    smoothed: npt.NDArray[np.float32] = windows.mean(axis=(2, 3)).astype(np.float32)
    return smoothed


def anomaly_score(anomalies: npt.NDArray[np.float32]) -> float:
    """The largest value of an anomaly map."""
    return float(anomalies.max())
