from collections.abc import Callable, Iterator

import pytest

from firmware_bridge.testing.bench import Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**line: Callable[[bytes], bytes]) -> Bench:
        made.append(Bench(**line))
        return made[-1]

    yield make
    for bench in made:
        bench.close()
