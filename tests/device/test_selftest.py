"""The golden self-test: the PSNR against numpy, and what passes."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

import pytest

from edge.bundle import Golden
from edge.device import selftest
from edge.device.engine_process import EngineProcess
from edge.device.errors import SelfTestFailed

if TYPE_CHECKING:
    from .conftest import CommandMaker


def test_psnr_agrees_with_numpy() -> None:
    import numpy as np

    generator = np.random.default_rng(0)
    for scale in (1e-6, 1e-3, 1.0):
        a = generator.uniform(-1, 1, 500).astype("<f4")
        b = (a + scale * generator.standard_normal(500)).astype("<f4")
        wanted = 10 * np.log10(4.0 / np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
        assert selftest.psnr(a.tobytes(), b.tobytes()) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        ((0.0, 1.0), (0.0, 1.0), math.inf),
        ((0.0, 1.0), (0.0,), -math.inf),
        ((), (), -math.inf),
        ((math.nan,), (math.nan,), -math.inf),
        ((math.inf,), (0.0,), -math.inf),
        ((0.0,), (2.0,), 0.0),
    ],
)
def test_psnr_at_the_edges(a: tuple[float, ...], b: tuple[float, ...], wanted: float) -> None:
    assert selftest.psnr(struct.pack(f"<{len(a)}f", *a), struct.pack(f"<{len(b)}f", *b)) == wanted


def test_the_limit_decides(toy_command: CommandMaker) -> None:
    with EngineProcess(toy_command()) as engine:
        engine.begin(0, 5, 2, bytes(64))
        while engine.step(0).left:
            pass
        golden = engine.result(0).image
        steps: list[tuple[int, int]] = []

        def measure(output: bytes, least: float, *, exact: bool = False) -> float:
            test = Golden(5, 2, "zeros", exact=exact, min_psnr_db=least)
            return selftest.run(engine, test, output, lambda *at: steps.append(at))

        assert measure(golden, 60) == math.inf
        assert steps == [(1, 3), (2, 3), (3, 3)]
        assert measure(golden, 60, exact=True) == math.inf
        values = struct.unpack("<16f", golden)
        near = struct.pack("<16f", *(value + 0.001 for value in values))
        assert measure(near, 60) == pytest.approx(66.02, abs=0.01)
        with pytest.raises(SelfTestFailed, match=r"66\.0 dB against the golden output, 70\.0 dB are needed"):
            measure(near, 70)
        one_bit = bytes([golden[0] ^ 1]) + golden[1:]
        assert measure(one_bit, 60) > 120
        with pytest.raises(SelfTestFailed, match="1 of 16 values are not the golden output's, bit for bit"):
            measure(one_bit, 60, exact=True)
        with pytest.raises(SelfTestFailed, match="the golden output has 60 bytes"):
            measure(golden[:60], 60)
        assert engine.memory()[1] == 0
