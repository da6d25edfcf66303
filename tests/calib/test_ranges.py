"""How far quantizers reach: largest, percentile, least squares; for ranges and for exponents."""

from __future__ import annotations

import pytest
import torch

from calib.errors import CalibrationError
from calib.observe import BINS, bins_of
from calib.ranges import Largest, LeastSquares, Percentile, RangeMethod, ValueHistogram, change_exponents, input_range

STEP = torch.tensor(1.0)


def changes_of(*rows: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.bincount(bins_of(row.abs()), minlength=BINS) for row in rows])


def exponents(changes: torch.Tensor, method: RangeMethod, code_limit: int = 127) -> list[int]:
    return change_exponents(changes, STEP, method, largest=10, code_limit=code_limit)


def test_exponents_reach_as_far_as_the_method_says() -> None:
    # 10,000 changes around 50 units, one of 5,000.
    bulk = torch.full((10_000,), 50.0)
    changes = changes_of(torch.cat([bulk, torch.tensor([5000.0])]), bulk, torch.zeros(1))
    assert exponents(changes, Largest()) == [6, 0, 0]  # 127 * 2^6 = 8128 reaches 5000, 2^5 does not
    assert exponents(changes, Percentile(0.999)) == [0, 0, 0]
    assert exponents(changes, Percentile(1.0)) == [6, 0, 0]
    assert exponents(changes, Largest(), code_limit=7) == [10, 3, 0]  # 7 * 2^3 = 56
    assert exponents(changes, Percentile(0.999), code_limit=31) == [1, 1, 0]


def test_least_squares_weighs_rounding_against_cutting() -> None:
    generator = torch.Generator().manual_seed(0)
    changes = changes_of(torch.randn(100_000, generator=generator) * 100)
    (exponent,) = exponents(changes, LeastSquares(), code_limit=7)
    assert exponent < exponents(changes, Largest(), code_limit=7)[0]

    def error(k: int) -> float:
        x = torch.randn(100_000, generator=torch.Generator().manual_seed(1)) * 100
        return float((x - (x / 2**k).round().clamp(-7, 7) * 2**k).square().mean())

    assert error(exponent) == min(error(k) for k in range(9))


def test_input_ranges_keep_zero_and_the_side_that_is_empty() -> None:
    seen = ValueHistogram()
    seen.see(torch.linspace(0, 8, 5001))
    for method in (Largest(), Percentile(), LeastSquares()):
        low, high = input_range(seen, method, 255)
        assert low == 0
        assert high == pytest.approx(8, rel=0.07)
    seen.see(torch.tensor([-100.0]))
    assert input_range(seen, Largest(), 255)[0] == pytest.approx(-100, rel=0.07)
    low, high = input_range(seen, Percentile(0.999), 255)
    assert low == 0
    assert high == pytest.approx(8, rel=0.07)
    assert input_range(seen, LeastSquares(), 15)[0] > -100


def test_a_percentile_is_a_share() -> None:
    with pytest.raises(CalibrationError, match="share"):
        Percentile(0.0)
