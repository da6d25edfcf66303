"""How near an engine must come to the oracle, from how near the oracle itself comes to FP32.

Operators give the same integers everywhere, but the float parts between them are PyTorch's in the oracle and differ in
the last bit from this kit's kernels (and, where a program is not exact, from one machine to another). Where such a bit
flips a rounding, the engine carries another draw of the same quantization noise; two draws are 3 dB farther from each
other than one is from FP32. An engine that computes wrongly is tens of dB away.

Where a program is exact (``edge.lower.exactness``), this machine's engine is held to it once, when a bundle is made,
and devices must then give that engine's bits.
"""

from __future__ import annotations

from typing import Final

WANTED_DB: Final = 60.0
"""Asked of a board where the model's own quantization noise allows it."""

MARGIN_DB: Final = 9.0
"""Two draws of the noise (3 dB), and 6 dB for the spread between images."""

LEAST_DB: Final = 20.0
"""Below this the comparison says nothing, whatever the model."""


def least_agreement(oracle_db: float) -> float:
    """The PSNR in dB that a board needs against an oracle that comes to ``oracle_db`` dB of FP32."""
    return max(LEAST_DB, min(WANTED_DB, oracle_db - MARGIN_DB))
