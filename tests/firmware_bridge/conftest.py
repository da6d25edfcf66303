from collections.abc import Callable, Iterator

import pytest

from firmware_bridge.testing.bench import Bench
from firmware_bridge.testing.site import Site, make_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("site") / "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("site") / "theirs")


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
