"""The kernels against the reference, bit for bit: natively, under emulation, and under sanitizers."""

from __future__ import annotations

from pathlib import Path

import engine_selftest as selftest
import numpy as np
import numpy.typing as npt
import pytest
import torch

from calib.noise import noise
from edge.toolchain import build_selftest

Cases = list[tuple[selftest.LayerCase, selftest.Outcome]]

CASES = 120


@pytest.fixture(scope="module")
def native() -> str:
    return str(build_selftest("host"))


@pytest.fixture(scope="module")
def cases(native: str) -> Cases:
    torch.set_num_threads(1)
    drawn = [selftest.random_case(seed) for seed in range(CASES)]
    drawn += [selftest.without_history(case) for case in drawn[:10]]
    plain = [(case, selftest.reference(case)) for case in drawn]
    with selftest.FloatProgram([native, "portable"]) as features:
        around = [selftest.surrounded(selftest.random_case(seed), seed) for seed in range(CASES, 2 * CASES)]
        return plain + [(case, selftest.reference(case, features)) for case in around]


@pytest.fixture(scope="module")
def aarch64() -> Path:
    return build_selftest("aarch64")


def check(command: list[str], cases: Cases, threads: int = 1) -> None:
    answer = selftest.run_program(command, b"".join(selftest.encode(case, threads) for case, _ in cases))
    for case, expected in cases:
        selftest.assert_equal(expected, selftest.decode(case, answer))
    assert answer.finished()


def test_the_cases_reach_what_they_should(cases: Cases) -> None:
    outcomes = [outcome for _, outcome in cases]
    assert any(saturated for outcome in outcomes for _, _, saturated in outcome.statistics)
    assert any(residual for outcome in outcomes for _, residual, _ in outcome.statistics)
    assert any(passes == 0 for outcome in outcomes for passes, _, _ in outcome.statistics)
    assert {case.operator.kind for case, _ in cases} == set(selftest.Kind)
    assert {case.plan.mode for case, _ in cases} == set(selftest.Mode)


@pytest.mark.parametrize("isa", selftest.NATIVE_SETS)
def test_native_kernels_equal_the_reference(native: str, cases: Cases, isa: str) -> None:
    check([native, isa], cases)


@pytest.mark.parametrize("isa", selftest.NATIVE_SETS)
def test_native_kernels_stay_within_their_memory(cases: Cases, isa: str) -> None:
    check([str(build_selftest("host", sanitize=True)), isa], cases)


@selftest.needs_emulator
@pytest.mark.parametrize(
    ("cpu", "isa"),
    [
        ("cortex-a76", "dotprod"),
        ("cortex-a76", "neon"),
        ("cortex-a76", "portable"),
        ("cortex-a72", "auto"),
        ("max", "i8mm"),
    ],
)
def test_emulated_kernels_equal_the_reference(aarch64: Path, cases: Cases, cpu: str, isa: str) -> None:
    check([*selftest.emulated(aarch64, cpu), isa], cases)


@selftest.needs_emulator
def test_a_cpu_without_dot_product_refuses_those_kernels(aarch64: Path) -> None:
    with pytest.raises(AssertionError, match="ISA"):
        selftest.run_program([*selftest.emulated(aarch64, "cortex-a72"), "dotprod"], b"")


def test_a_wrong_integer_is_noticed(native: str, cases: Cases) -> None:
    case, expected = next(pair for pair in cases if pair[1].accumulator.size)
    actual = selftest.decode(case, selftest.run_program([native, "auto"], selftest.encode(case)))
    actual.accumulator = actual.accumulator + np.eye(1, actual.accumulator.size, dtype=np.int32)[0]
    with pytest.raises(AssertionError):
        selftest.assert_equal(expected, actual)


@pytest.mark.parametrize("threads", [2, 5])
def test_the_thread_count_changes_nothing(native: str, cases: Cases, threads: int) -> None:
    check([native, "auto"], cases[::4], threads)


@pytest.mark.parametrize("kind", [selftest.Kind.LINEAR, selftest.Kind.CONV])
def test_a_thousand_steps_leave_no_drift(native: str, kind: selftest.Kind) -> None:
    """I2: O == W (*) A after 1,000 steps, by an integer product of its own."""
    case = selftest.long_case(kind, steps=1000)
    answer = selftest.run_program([native, "auto"], selftest.encode(case))
    outcome = selftest.decode(case, answer)
    batch, channels, height, width = case.geometry[:4]
    lattice = torch.from_numpy(outcome.lattice.reshape(batch, height, width, channels).astype(np.float64))
    if kind is selftest.Kind.CONV:
        lattice = lattice.permute(0, 3, 1, 2)
    expected = case.operator(lattice, case.weights[0].double())  # exact: far below 2^53
    if kind is selftest.Kind.CONV:
        expected = expected.permute(0, 2, 3, 1)
    np.testing.assert_array_equal(outcome.accumulator, expected.reshape(-1).numpy())
    assert np.abs(outcome.lattice).max() > 100


@pytest.mark.parametrize("seed", [0, 1, 7, 2**64 - 1])
def test_noise_is_the_reference_stream(native: str, seed: int) -> None:
    request = np.uint32(selftest.NOISE).tobytes() + np.array([seed, 4097], np.uint64).tobytes()
    values = selftest.run_program([native, "auto"], request).take("<f4", 4097)
    expected = noise(seed, (4097,))
    np.testing.assert_allclose(values, expected, rtol=2e-7, atol=1e-7)
    assert (values == expected).mean() > 0.999


def test_noise_has_the_same_bits_on_every_machine(native: str, aarch64: str) -> None:
    request = np.uint32(selftest.NOISE).tobytes() + np.array([20, 100_001], np.uint64).tobytes()
    here = selftest.run_program([native, "auto"], request).take("<u4", 100_001)
    there = selftest.run_program([*selftest.emulated(aarch64, "cortex-a72"), "auto"], request).take("<u4", 100_001)
    np.testing.assert_array_equal(there, here)


def test_checksum_is_castagnoli(native: str) -> None:
    request = np.uint32(selftest.CHECKSUM).tobytes() + np.uint64(9).tobytes() + b"123456789"
    assert selftest.run_program([native, "auto"], request).take("<u4", 1)[0] == 0xE3069283


def test_anomaly_map_is_the_references(native: str) -> None:
    from calib.inspection import anomaly_map, anomaly_score

    rng = np.random.default_rng(5)
    image, reconstruction = (rng.uniform(-1, 1, (3, 11, 7)).astype(np.float32) for _ in range(2))
    request = np.uint32(selftest.ANOMALIES).tobytes() + np.array([3, 11, 7], np.int32).tobytes()
    answer = selftest.run_program([native, "auto"], request + reconstruction.tobytes() + image.tobytes())
    score = answer.take("<f4", 1)[0]
    expected = anomaly_map(image, reconstruction)
    np.testing.assert_allclose(answer.take("<f4", 77).reshape(11, 7), expected, rtol=1e-6)
    assert score == pytest.approx(anomaly_score(expected), rel=1e-6)


def activations_request(rows: int, columns: int) -> tuple[npt.NDArray[np.float32], bytes]:
    x = np.random.default_rng(rows).normal(scale=6, size=(rows, columns)).astype(np.float32)
    x.flat[:4] = (0.0, 90.0, -90.0, -0.0)
    head = np.uint32(selftest.ACTIVATIONS).tobytes() + np.array([rows, columns], np.uint64).tobytes()
    return x, head + x.tobytes()


@pytest.mark.parametrize("shape", [(1, 5), (37, 29), (3, 256)])
def test_activations_are_close_to_exact_ones(native: str, shape: tuple[int, int]) -> None:
    x, request = activations_request(*shape)
    answer = selftest.run_program([native, "auto"], request)
    wide = torch.from_numpy(x).double()
    np.testing.assert_allclose(answer.take("<f4", x.size), torch.sigmoid(wide).flatten(), rtol=5e-7, atol=1e-37)
    softmax = answer.take("<f4", x.size).reshape(shape)
    np.testing.assert_allclose(softmax, torch.softmax(wide, -1), rtol=1e-5, atol=1e-37)
    np.testing.assert_allclose(softmax.sum(-1), 1, rtol=1e-6)


def test_activations_keep_nan(native: str) -> None:
    request = np.uint32(selftest.ACTIVATIONS).tobytes() + np.array([1, 9], np.uint64).tobytes()
    x = np.array([0, 1, 2, np.nan, 4, 5, 6, 7, 8], np.float32)
    answer = selftest.run_program([native, "auto"], request + x.tobytes())
    np.testing.assert_array_equal(np.isnan(answer.take("<f4", 9)), np.isnan(x))
    assert np.isnan(answer.take("<f4", 9)).all()


@selftest.needs_emulator
def test_activations_have_the_same_bits_everywhere(native: str, aarch64: Path) -> None:
    _, request = activations_request(37, 29)
    here = selftest.run_program([native, "portable"], request).take("<u4", 2 * 37 * 29)
    for command in ([native, "auto"], [*selftest.emulated(aarch64, "cortex-a72"), "auto"]):
        np.testing.assert_array_equal(selftest.run_program(command, request).take("<u4", 2 * 37 * 29), here)
