import json
import subprocess
import sys

import pytest

from firmware_bridge.testing.faulty import Faults
from firmware_bridge.testing.figures import goodput, hostile, stream

RATE = 300_000.0


def share(**faults: float) -> float:
    return goodput.in_virtual_time(1_000_000, Faults(bytes_per_second=RATE, **faults)).share


def test_a_clean_line_carries_nearly_its_rate() -> None:
    assert share() > 0.96


@pytest.mark.parametrize(("loss", "least"), [(0.05, 0.85), (0.1, 0.75)])
def test_lost_frames_cost_little_more_than_themselves(loss: float, least: float) -> None:
    assert share(loss=loss) > least


def test_a_line_with_bit_errors_in_every_long_frame_carries_half() -> None:
    assert share(bit_errors=1e-4) > 0.5


def test_a_line_that_does_everything_wrong_carries_half() -> None:
    assert share(loss=0.02, duplication=0.02, reordering=0.02, bit_errors=1e-5, boot_log=0.01) > 0.5


def test_no_damaged_frame_is_accepted() -> None:
    assert hostile.corrupted_frames(20_000) == 0


def test_garbage_makes_no_memory_grow() -> None:
    found = hostile.garbage(16 * 2**20)
    assert found.events == 0
    assert found.rss_after - found.rss_before < 2048


def test_an_upload_and_jobs_pass_over_a_line_of_their_own() -> None:
    found = goodput.over_ptys(300_000, Faults(loss=0.05, bytes_per_second=RATE))
    assert found.bytes == 300_000
    assert 0 < found.share < 1.1
    assert stream.stream(20).jobs == 20


def test_figures_are_printed_for_programs_too() -> None:
    command = [sys.executable, "-m", "firmware_bridge.testing", "bench", "corruption", "--frames", "1000", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == {"frames": 1000, "accepted": 0}
