"""The float operators: close to what PyTorch computes, and the same bits on every instruction set."""

from __future__ import annotations

from math import prod
from pathlib import Path

import engine_selftest as selftest
import numpy as np
import numpy.typing as npt
import pytest
import torch

from edge.calls import Activation, Norm, Prologue
from edge.eager import floats
from edge.toolchain import build_selftest

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def native() -> str:
    return str(build_selftest("host"))


@pytest.fixture(scope="module")
def aarch64() -> Path:
    return build_selftest("aarch64")


def normal(seed: int, *shape: int, scale: float = 1.0) -> Floats:
    return np.random.default_rng(seed).normal(scale=scale, size=shape).astype(np.float32)


NORMS = [
    ((2, 5, 24), selftest.Around(norm=Norm.GROUP, norm_groups=6)),
    ((1, 300, 40), selftest.Around(norm=Norm.GROUP, norm_groups=5, skip_channels=13, activation=Activation.SILU)),
    ((3, 7, 33), selftest.Around(norm=Norm.LAYER)),
    ((1, 9, 12), selftest.Around(norm=Norm.RMS, skip_channels=5)),
    ((1, 9, 12), selftest.Around(activation=Activation.GELU)),
]


@pytest.mark.parametrize(("shape", "around"), NORMS)
def test_normalize_is_torchs(native: str, shape: tuple[int, ...], around: selftest.Around) -> None:
    values = normal(1, *shape) + np.float32(3)
    answer = selftest.run_program([native, "auto"], selftest.normalize_request(values, around))
    wanted = Prologue(around.norm, around.norm_groups, around.norm_eps, None, None, around.activation)
    expected = floats.prologue(wanted, torch.from_numpy(values), None, 1)
    np.testing.assert_allclose(answer.take("<f4", values.size).reshape(shape), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("activation", list(Activation))
def test_activations_are_torchs(native: str, activation: Activation) -> None:
    values = np.concatenate([np.linspace(-30, 30, 4001), normal(2, 1000), [0.0, -0.0, 1e-30, -90.0, 90.0]])
    values = values.astype(np.float32).reshape(1, -1)
    around = selftest.Around(activation=activation)
    answer = selftest.run_program([native, "auto"], selftest.normalize_request(values, around))
    expected = floats.activation(activation, torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(answer.take("<f4", values.size)[None], expected, rtol=1e-6, atol=4e-7)


def attention_request(
    size: tuple[int, int, int, int, int], threads: int = 1
) -> tuple[list[torch.Tensor], float, bytes]:
    """Of images, queries, keys, heads and depth: q, k, v, the scale, and the case."""
    images, queries, keys, heads, depth = size
    scale = depth**-0.5
    shapes = [(images, rows, heads * depth) for rows in (queries, keys, keys)]
    tensors = [normal(seed, *shape, scale=2.0) for seed, shape in enumerate(shapes)]
    head = np.array([images, queries, keys, heads, depth, threads], np.int64).tobytes() + np.float64(scale).tobytes()
    request = np.uint32(selftest.ATTENTION).tobytes() + head + b"".join(tensor.tobytes() for tensor in tensors)
    return [torch.from_numpy(tensor) for tensor in tensors], scale, request


SIZES = [
    (1, 256, 256, 1, 32),
    (2, 17, 77, 3, 20),
    (1, 5, 1, 2, 9),
    (1, 1, 130, 1, 4),
    (2, 40, 200, 5, 8),
    (1, 33, 64, 2, 64),
    (1, 8, 15, 1, 3),
]


@pytest.mark.parametrize("size", SIZES)
def test_attention_is_torchs(native: str, size: tuple[int, int, int, int, int]) -> None:
    (q, k, v), scale, request = attention_request(size)
    answer = selftest.run_program([native, "auto"], request)
    heads = size[3]
    q, k, v = (t.double().reshape(*t.shape[:2], heads, -1).transpose(1, 2) for t in (q, k, v))
    expected = (torch.softmax(scale * (q @ k.transpose(-2, -1)), -1) @ v).transpose(1, 2).flatten(2)
    np.testing.assert_allclose(
        answer.take("<f4", expected.numel()).reshape(expected.shape), expected, rtol=3e-5, atol=8e-6
    )


def all_requests(threads: int = 1) -> tuple[bytes, int]:
    """Every float operator once or more, and how many floats come back."""
    requests, count = [], 0
    for shape, around in NORMS:
        requests.append(selftest.normalize_request(normal(3, *shape, scale=4.0), around))
        count += prod(shape)
    for activation in Activation:
        requests.append(
            selftest.normalize_request(normal(4, 1, 5000, scale=9.0), selftest.Around(activation=activation))
        )
        count += 5000
    for size in SIZES:
        tensors, _, request = attention_request(size, threads)
        requests.append(request)
        count += tensors[0].numel()
    return b"".join(requests), count


@pytest.mark.parametrize(("isa", "threads"), [*((isa, 1) for isa in selftest.NATIVE_SETS[1:]), ("auto", 3)])
def test_every_instruction_set_gives_the_portable_bits(native: str, isa: str, threads: int) -> None:
    reference, count = all_requests()
    request, _ = all_requests(threads)
    expected = selftest.run_program([native, "portable"], reference).take("<u4", count)
    np.testing.assert_array_equal(selftest.run_program([native, isa], request).take("<u4", count), expected)


def test_attention_stays_within_its_memory(native: str) -> None:
    sanitized = str(build_selftest("host", sanitize=True))
    for size in SIZES:
        tensors, _, request = attention_request(size)
        count = tensors[0].numel()
        expected = selftest.run_program([native, "auto"], request).take("<u4", count)
        np.testing.assert_array_equal(selftest.run_program([sanitized, "auto"], request).take("<u4", count), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_attention_keeps_a_bad_query_to_itself(native: str, bad: float) -> None:
    tensors, _, request = attention_request((1, 20, 70, 1, 8))
    q = tensors[0].numpy().copy()
    q[0, 3, 0] = bad
    request = (
        request[: -sum(t.numel() for t in tensors) * 4]
        + q.tobytes()
        + b"".join(t.numpy().tobytes() for t in tensors[1:])
    )
    y = selftest.run_program([native, "auto"], request).take("<f4", q.size).reshape(q.shape)
    assert np.isnan(y[0, 3]).all()
    assert np.isfinite(np.delete(y, 3, 1)).all()


@selftest.needs_emulator
@pytest.mark.parametrize(("cpu", "isa"), [("cortex-a72", "neon"), ("cortex-a76", "portable"), ("max", "auto")])
def test_aarch64_gives_the_hosts_bits(native: str, aarch64: Path, cpu: str, isa: str) -> None:
    request, count = all_requests()
    expected = selftest.run_program([native, "auto"], request).take("<u4", count)
    answer = selftest.run_program([*selftest.emulated(aarch64, cpu), isa], request)
    np.testing.assert_array_equal(answer.take("<u4", count), expected)


def test_reuse_refreshes_holds_and_extrapolates(native: str) -> None:
    count, table = 11, np.array([1, 2, 0, 2, 1], np.int8)
    x = normal(5, len(table), count)
    head = np.array([count, len(table)], np.int64).tobytes()
    request = np.uint32(selftest.REUSE).tobytes() + head + table.tobytes() + x.tobytes()
    y = selftest.run_program([native, "auto"], request).take("<f4", x.size).reshape(x.shape)
    ahead = x[2] + np.float32(0.5) * (x[2] - x[0])
    np.testing.assert_array_equal(y, np.stack([x[0], x[0], x[2], ahead, x[2]]))


def permute_request(sizes: list[int], order: list[int]) -> tuple[Floats, bytes]:
    """Numbers of these sizes, and the case."""
    values = normal(6, *sizes)
    head = np.array([len(sizes), *sizes, *order], np.int64).tobytes()
    return values, np.uint32(selftest.PERMUTE).tobytes() + head + values.tobytes()


def test_permute_is_numpys(native: str) -> None:
    rng = np.random.default_rng(9)
    cases = [([], []), ([5], [0]), ([1, 3, 8, 8], [0, 2, 3, 1]), ([2, 0, 3], [2, 0, 1]), ([2, 3], [-1, 0])]
    for rank in range(1, 8):
        cases += [(rng.integers(1, 5, rank).tolist(), rng.permutation(rank).tolist()) for _ in range(6)]
    asked = [permute_request(sizes, order) for sizes, order in cases]
    for program in (native, str(build_selftest("host", sanitize=True))):
        answer = selftest.run_program([program, "auto"], b"".join(request for _, request in asked))
        for (values, _), (sizes, order) in zip(asked, cases, strict=True):
            assert answer.take("<u4", 1)[0] == 1
            expected = np.transpose(values, order).ravel()
            np.testing.assert_array_equal(answer.take("<f4", values.size), expected, err_msg=f"{sizes} {order}")


@pytest.mark.parametrize("order", [[0, 0], [0, 2], [-3, 1]])
def test_what_is_no_permutation_is_refused(native: str, order: list[int]) -> None:
    _, request = permute_request([2, 3], order)
    assert selftest.run_program([native, "auto"], request).take("<u4", 1)[0] == 0
