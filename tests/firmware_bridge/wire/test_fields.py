import pytest

from firmware_bridge.wire import fields


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (fields.UInt(5), [0, 5], [-1, 6, True, 1.0, "1", None]),
        (fields.UInt(5, 1), [1], [0]),
        (fields.Flag(), [True, False], [0, 1, None]),
        (fields.Text(3), ["", "abc", "äöü"], ["abcd", b"abc", None, "\ud800"]),
        (fields.Text(9, "[a-z]+"), ["abc"], ["", "abc\n", "ABC"]),
        (fields.Blob(2, 1), [b"a", b"ab"], [b"", b"abc", "a", bytearray(b"a")]),
        (fields.Maybe(fields.UInt(1)), [None, 0, 1], [2, False]),
        (fields.Many(fields.UInt(1), 2), [(), (0, 1)], [(0, 1, 0), (2,), "01", {0: 1}]),
        (
            fields.Tree(1, 2),
            [{}, {"a": 1, "b": None}],
            [{"a": 1, "b": 1, "c": 1}, {"a": [1]}, {1: 1}, [], {"a": 2**63}],
        ),
        (fields.Tree(2, 2), [{"a": [1, 2]}, {"a": {"b": b""}}], [{"a": [1, 2, 3]}, {"a": [[1]]}, {"a": object()}]),
    ],
)
def test_a_check_takes_what_it_allows_and_names_what_it_does_not(
    check: fields.Check, good: list[object], bad: list[object]
) -> None:
    for value in good:
        assert check(value) == value
    for value in bad:
        with pytest.raises(ValueError, match=r"\w{3}"):
            check(value)


def test_lists_become_tuples() -> None:
    assert fields.Many(fields.UInt(9), 3)([1, 2]) == (1, 2)
