"""How far a quantizer of activations should reach: largest value, percentile, or least mean square error.

One configuration type for each way, dispatched by type; the same three serve the ranges of ordinary (unmodulated)
quantization and the exponents of modulated changes. All look at histograms of magnitudes over ``bin_sizes()``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from calib.errors import CalibrationError
from calib.observe import BINS, bin_sizes, bins_of


@dataclass(frozen=True)
class Largest:
    """Reach everything that was observed."""


@dataclass(frozen=True)
class Percentile:
    """Reach all but the rarest.

    Attributes:
        share: of the elements to reach, in (0, 1].
    """

    share: float = 0.9999

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise CalibrationError(f"share {self.share}", where="Percentile", mend="use a share in (0, 1]")


@dataclass(frozen=True)
class LeastSquares:
    """Reach where rounding and cutting together make the least mean square error."""


RangeMethod = Largest | Percentile | LeastSquares


@dataclass
class ValueHistogram:
    """Signed histogram of one layer's input.

    Attributes:
        negative, positive: int64 ``[BINS]``: magnitudes of the values below zero, and of the others.
    """

    negative: torch.Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.int64))
    positive: torch.Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.int64))

    def see(self, x: torch.Tensor) -> None:
        """Take in a float32 tensor of any shape."""
        bins, below = bins_of(x.abs()), x.flatten() < 0
        self.negative += torch.bincount(bins[below], minlength=BINS)
        self.positive += torch.bincount(bins[~below], minlength=BINS)


def change_exponents(
    changes: torch.Tensor, step: torch.Tensor, method: RangeMethod, *, largest: int, code_limit: int
) -> list[int]:
    """For every row of a histogram of changes, the exponent whose one pass reaches as far as the method says.

    Args:
        changes: int64 ``[T, BINS]``, magnitudes of a layer's changes at each step.
        step: ``s``, what one unit of the lattice is worth.
        method: how far to reach.
        largest: greatest exponent to use.
        code_limit: largest code of a pass.

    Returns:
        ``k`` per step, in [0, largest]; 0 where nothing was seen.
    """
    sizes = bin_sizes() / step.double()
    match method:
        case Largest():
            reached = sizes[((changes > 0) * torch.arange(BINS)).amax(1)]
        case Percentile(share):
            reached = sizes[_percentile_bins(changes, share)]
        case LeastSquares():
            return _least_square_exponents(changes, sizes, largest, code_limit)
    reach = code_limit * 2.0 ** torch.arange(largest, dtype=torch.float64)
    exponents: list[int] = torch.bucketize(reached, reach).tolist()
    return exponents


def _percentile_bins(histogram: torch.Tensor, share: float) -> torch.Tensor:
    """Index of the bin below which ``share`` of each row lies."""
    total = histogram.sum(-1, keepdim=True).double()
    return (histogram.double().cumsum(-1) < share * total).sum(-1).clamp(max=BINS - 1)


def _least_square_exponents(changes: torch.Tensor, sizes: torch.Tensor, largest: int, code_limit: int) -> list[int]:
    finite = torch.isfinite(sizes)
    counted, sizes = changes[:, finite].double(), sizes[finite]
    errors = []
    for exponent in range(largest + 1):
        unit = 2.0**exponent
        rounded = torch.minimum(sizes.square(), torch.tensor(unit**2 / 12, dtype=torch.float64))
        errors.append(counted @ torch.where(sizes > code_limit * unit, (sizes - code_limit * unit).square(), rounded))
    # Among equals the smallest exponent: argmin gives the first.
    exponents: list[int] = torch.stack(errors, 1).argmin(1).tolist()
    return exponents


def input_range(seen: ValueHistogram, method: RangeMethod, levels: int, candidates: int = 80) -> tuple[float, float]:
    """Lowest and highest value that an ordinary quantizer of a layer's input should represent.

    Args:
        seen: of the input, on calibration seeds.
        method: how far to reach.
        levels: codes less one, 255 for eight bits.
        candidates: ranges that ``LeastSquares`` tries.
    """
    sizes = bin_sizes()
    sizes = torch.where(torch.isfinite(sizes), sizes, 0.0)
    match method:
        case Largest():
            return _edges(seen, sizes, 1.0)
        case Percentile(share):
            return _edges(seen, sizes, share)
        case LeastSquares():
            low, high = _edges(seen, sizes, 1.0)
            best, least = (low, high), torch.inf
            for shrink in torch.linspace(1, 0.05, candidates).tolist():
                error = _square_error(seen, sizes, (low * shrink, high * shrink), levels)
                if error < least:
                    best, least = (low * shrink, high * shrink), error
            return best


def _edges(seen: ValueHistogram, sizes: torch.Tensor, share: float) -> tuple[float, float]:
    """Values that leave out half of the rest on each side (all of it on the only side there is)."""
    total = int(seen.negative.sum() + seen.positive.sum())
    allowed = (1 - share) * total / 2
    ends = []
    for side in (seen.negative, seen.positive):
        outside = side.double().flip(0).cumsum(0).flip(0)  # elements in this bin or beyond it
        ends.append(float(sizes[int((outside > allowed).sum()) - 1]) if float(outside[0]) > allowed else 0.0)
    return -ends[0], ends[1]


def _square_error(seen: ValueHistogram, sizes: torch.Tensor, edges: tuple[float, float], levels: int) -> float:
    step = (edges[1] - edges[0]) / levels
    error = 0.0
    for side, end in ((seen.negative, -edges[0]), (seen.positive, edges[1])):
        cut = (sizes - end).clamp(min=0).square()
        rounded = torch.minimum(sizes.square(), torch.tensor(step**2 / 12, dtype=torch.float64))
        error += float(side.double() @ torch.where(sizes > end, cut, rounded))
    return error
