"""Weights in kernel order: the formula, the round trip, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.packing import WeightShape, pack, unpack

SHAPES = st.builds(
    lambda groups, outputs, inputs, kernel, transposed: WeightShape(
        groups * outputs, groups * inputs, kernel, groups, transposed
    ),
    st.integers(1, 3),
    st.integers(1, 37),
    st.integers(1, 9),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.booleans(),
)


def random_weight(shape: WeightShape, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-127, 128, shape.torch_shape, generator=generator, dtype=torch.int8)


@settings(deadline=None)
@given(SHAPES, st.integers(0, 2**31))
def test_unpack_undoes_pack(shape: WeightShape, seed: int) -> None:
    weight = random_weight(shape, seed)
    packed = pack(weight, shape)
    assert packed.shape == (shape.packed_bytes,)
    assert packed.is_contiguous()
    assert torch.equal(unpack(packed, shape), weight)


@settings(deadline=None, max_examples=40)
@given(SHAPES)
def test_padding_is_zero(shape: WeightShape) -> None:
    packed = pack(torch.ones(shape.torch_shape, dtype=torch.int8), shape)
    assert int(packed.sum()) == torch.Size(shape.torch_shape).numel()


@pytest.mark.parametrize("transposed", [False, True])
def test_element_lies_where_the_contract_says(transposed: bool) -> None:
    shape = WeightShape(2 * 18, 2 * 5, (2, 3), 2, transposed)
    weight, packed = random_weight(shape), pack(random_weight(shape), shape)
    group_bytes = 2 * 6 * 2 * 16 * 4
    for group, output, inp, row, column in [(0, 0, 0, 0, 0), (1, 17, 4, 1, 2), (0, 16, 3, 0, 1), (1, 5, 4, 1, 0)]:
        tap = row * 3 + column
        place = (((output // 16) * 6 + tap) * 2 + inp // 4) * 64 + (output % 16) * 4 + inp % 4
        index = (5 * group + inp, output, row, column) if transposed else (18 * group + output, inp, row, column)
        assert packed[group * group_bytes + place] == weight[index]


def test_packing_is_frozen() -> None:
    weight = torch.arange(6, dtype=torch.int8).reshape(2, 3, 1, 1) + 1
    expected = [1, 2, 3, 0, 4, 5, 6, 0] + [0] * 56
    assert pack(weight, WeightShape(2, 3)).tolist() == expected


def test_wrong_type_or_shape_is_refused() -> None:
    shape = WeightShape(4, 4, (3, 3))
    with pytest.raises(ValueError, match="int8 weight"):
        pack(torch.zeros(shape.torch_shape), shape)
    with pytest.raises(ValueError, match="int8 weight"):
        pack(torch.zeros(4, 4, dtype=torch.int8), shape)
    with pytest.raises(ValueError, match="expected int8"):
        unpack(torch.zeros(3, dtype=torch.int8), shape)
