"""The device side is light: it imports nothing heavy and starts in well under a second."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
HEAVY = {"torch", "numpy", "executorch", "diffusers", "pydantic", "matplotlib", "rich", "calib", "PIL", "scipy"}
EVERYTHING = (
    "import sys, boards, edge.device.__main__, edge.device.supervisor, firmware_bridge.serve, "
    "firmware_bridge.link.serial; boards.load_board('rpi5'); print(*sorted({m.partition('.')[0] for m in sys.modules}))"
)


def test_the_device_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EVERYTHING], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert {"edge", "firmware_bridge", "boards", "serial"} <= loaded
    assert not loaded & HEAVY


def test_it_starts_within_a_second() -> None:
    times = []
    for _ in range(3):
        begun = time.monotonic()
        subprocess.run([sys.executable, "-m", "edge.device", "--help"], cwd=REPOSITORY, capture_output=True, check=True)
        times.append(time.monotonic() - begun)
    assert min(times) < 1.0, times
