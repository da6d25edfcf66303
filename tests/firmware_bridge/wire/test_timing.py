import random

import pytest

from firmware_bridge import limits
from firmware_bridge.wire.timing import FrameSize, RoundTrip


def test_the_timeout_follows_the_round_trip() -> None:
    trip = RoundTrip()
    for _ in range(50):
        trip.sample(0.3)
    assert trip.timeout() == pytest.approx(0.3, rel=0.05)
    for _ in range(50):
        trip.sample(0.0001)
    assert trip.timeout() == limits.MIN_TIMEOUT
    for _ in range(20):
        trip.back_off()
    assert trip.timeout() == limits.MAX_TIMEOUT
    trip.sample(0.0001)
    assert trip.timeout() == limits.MIN_TIMEOUT


def test_a_spread_of_round_trips_lengthens_the_timeout() -> None:
    trip = RoundTrip()
    trip.sample(0.2)
    assert trip.timeout() == pytest.approx(0.2 + 4 * 0.1)
    trip.sample(0.4)
    assert trip.timeout() == pytest.approx(0.225 + 4 * (0.1 + (0.2 - 0.1) / 4))


def run(size: FrameSize, chance: random.Random, packets: int, bit_errors: float, loss: float = 0.0) -> int:
    for _ in range(packets):
        length = size.best()
        whole = (1 - bit_errors) ** (8 * (length + 30)) * (1 - loss)
        (size.arrived if chance.random() < whole else size.lost)(length)
    return size.best()


@pytest.mark.parametrize(("bit_errors", "low", "high"), [(0.0, 8192, 8192), (1e-6, 1000, 8192), (1e-4, 120, 350)])
def test_frames_fit_the_line(bit_errors: float, low: int, high: int) -> None:
    for seed in range(10):
        assert low <= run(FrameSize(), random.Random(seed), 2000, bit_errors) <= high


def test_lost_frames_shorten_and_quiet_lengthens_again() -> None:
    size, chance = FrameSize(), random.Random(1)
    assert size.best() == limits.CHUNK
    assert not size.is_lossy
    assert run(size, chance, 500, 0.0, loss=0.1) < 1000
    assert size.is_lossy
    assert run(size, chance, 2000, 0.0) == limits.CHUNK
    assert run(size, chance, 300, 1.0) == limits.MIN_FRAME


def test_what_was_only_late_is_forgiven() -> None:
    size = FrameSize()
    size.lost(8192)
    shortened = size.best()
    size.lost(8192)
    size.forgive()
    assert shortened <= size.best() < limits.CHUNK
    size.forgive()
    size.forgive()
    assert not size.is_lossy
    assert size.best() == limits.CHUNK
    size.lost(8192)
    assert size.is_lossy


def test_the_shortest_round_trip_is_remembered() -> None:
    trip = RoundTrip()
    for seconds in (0.3, 0.1, 0.2):
        trip.sample(seconds)
    assert trip.least == 0.1
