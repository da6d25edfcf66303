import pytest

from firmware_bridge.testing.simulation import simulate

from .device import StoredMachine

MACHINE = "tests.simulation.device:StoredMachine"
SEEDS = 100
BATCH = 10


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_no_seed_breaks_a_promise_of_the_devices_own_storage(first: int) -> None:
    for seed in range(first, first + BATCH):
        outcome = simulate(StoredMachine(), seed)
        again = f"python -m firmware_bridge.testing simulate --seed {seed} --machine {MACHINE}"
        assert not outcome.violations, f"replay: {again}\n" + "\n".join(outcome.violations)


def test_a_seed_is_the_same_run_again() -> None:
    assert simulate(StoredMachine(), 27) == simulate(StoredMachine(), 27)
