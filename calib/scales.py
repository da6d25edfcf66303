"""Static scales from what was observed: a layer's lattice step, and the exponent of each step's pass."""

from __future__ import annotations

import torch

from calib.errors import CalibrationError
from calib.lattice import CODE_LIMIT
from calib.observe import LayerObservation, bin_sizes
from calib.plan import coarse_exponent


def lattice_step(largest: float, bits: int, headroom: float) -> torch.Tensor:
    """The lattice step ``s`` that puts the largest observed magnitude, times ``headroom``, at the lattice's end.

    Args:
        largest: magnitude of the layer's input; 0 for one that never moves.
        bits: ``L``.
        headroom: >= 1, room for inputs that calibration has not seen.

    Returns:
        float32 scalar > 0.

    Raises:
        CalibrationError: a magnitude that is not finite.
    """
    limit = 2 ** (bits - 1) - 1
    step = torch.tensor(largest * headroom / limit, dtype=torch.float64).to(torch.float32)
    if not torch.isfinite(step):
        raise CalibrationError(f"an input of magnitude {largest}", mend="the float model overflows; check it")
    tiny = torch.finfo(torch.float32).tiny
    # 1/s must be finite too.
    return step if step > 4 * tiny else torch.tensor(1.0 / limit)


def choose_exponents(observation: LayerObservation, step: torch.Tensor, bits: int) -> tuple[int, ...]:
    """For every sampler step, the exponent that makes one pass's mean square error least.

    A pass of exponent ``k`` rounds to ``2^k`` lattice steps (error ``4^k / 12``) and cuts changes beyond
    ``127 * 2^k``; what it cuts or rounds away is part of the next step's change. Step 0 is the anchor's and
    gets the coarse exponent.

    Args:
        observation: of the layer.
        step: ``s``.
        bits: ``L``.

    Returns:
        ``k`` per step, in [0, coarse exponent].
    """
    coarse = coarse_exponent(bits)
    # Bins beyond any finite change are empty: calibration refuses an input that overflows.
    sizes = bin_sizes().nan_to_num(0.0, 0.0) / step.double()
    exponents = torch.arange(coarse + 1, dtype=torch.float64)
    units = 2.0**exponents
    cut = (sizes[None, :] - CODE_LIMIT * units[:, None]).clamp(min=0).square()  # [k, bin]
    counts = observation.changes.double()  # [T, bin]
    seen = counts.sum(1).clamp(min=1)
    error = counts @ cut.T / seen[:, None] + units.square() / 12
    best = error.argmin(1)
    best[0] = coarse
    return tuple(best.tolist())
