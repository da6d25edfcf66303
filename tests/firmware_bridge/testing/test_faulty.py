import random

import pytest

from firmware_bridge.testing.faulty import BOOT_LOG, Faults, FaultyLine, flip_bits


def arrivals(faults: Faults, count: int = 2000, seed: int = 1) -> list[bytes]:
    line = FaultyLine(faults, random.Random(seed))
    for number in range(count):
        line.send(number * 0.001, number.to_bytes(4, "big"))
    return list(iter(lambda: line.receive(1e9), None))


def sent(count: int = 2000) -> list[bytes]:
    return [number.to_bytes(4, "big") for number in range(count)]


def test_a_line_without_faults_carries_everything_in_order() -> None:
    assert arrivals(Faults()) == sent()


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_shares_are_as_asked(share: float) -> None:
    assert len(arrivals(Faults(loss=share))) == pytest.approx(2000 * (1 - share), rel=0.1)
    assert len(arrivals(Faults(duplication=share))) == pytest.approx(2000 * (1 + share), rel=0.1)
    assert arrivals(Faults(boot_log=share)).count(BOOT_LOG) == pytest.approx(2000 * share, rel=0.2)


def test_reordering_loses_nothing() -> None:
    got = arrivals(Faults(reordering=0.2))
    assert got != sent()
    assert sorted(got) == sent()


def test_bits_flip_at_the_rate_asked_for() -> None:
    data, chance = bytes(200_000), random.Random(2)
    flipped = flip_bits(data, 1e-3, chance)
    assert sum(byte.bit_count() for byte in flipped) == pytest.approx(1600, rel=0.1)
    assert flip_bits(data, 0.0, chance) is data
    assert flip_bits(b"", 0.5, chance) == b""


def test_a_seed_gives_the_same_faults() -> None:
    faults = Faults(0.1, 0.1, 0.1, 1e-3, 0.1)
    assert arrivals(faults, seed=3) == arrivals(faults, seed=3)
    assert arrivals(faults, seed=3) != arrivals(faults, seed=4)


def test_what_is_on_its_way_can_be_cut() -> None:
    line = FaultyLine(Faults(), random.Random(1))
    line.send(0.0, b"x")
    assert line.receive(0.0) is None
    assert line.next_arrival() == pytest.approx(0.002)
    line.cut()
    assert line.next_arrival() == float("inf")
    assert line.receive(1.0) is None
