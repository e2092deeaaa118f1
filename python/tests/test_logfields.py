"""Copies of what is logged: bounded, whatever it is."""

import pytest

from snakepit_bridge import Array, _logfields
from snakepit_bridge._logfields import snapshot

LIMIT = _logfields._TEXT


@pytest.mark.parametrize(
    "data",
    [
        bytes(10 * LIMIT),
        bytearray(10 * LIMIT),
        memoryview(bytes(80 * LIMIT)).cast("d"),
        memoryview(bytes(80 * LIMIT)).cast("d")[::2],
    ],
    ids=["bytes", "bytearray", "elements of 8 bytes", "every second element"],
)
def test_bytes_are_cut(data):
    assert snapshot(data) == bytes(LIMIT)


def test_bytes_that_are_no_row():
    assert snapshot(memoryview(b"abcd")[::2]) == b"ac"
    assert snapshot(memoryview(b"abcdef").cast("B", (2, 3))) == b"abcdef"


def test_large_arrays_become_text():
    small = snapshot(Array("|u1", (9,), bytes(9)))
    assert small == Array("|u1", (9,), bytes(9))
    assert snapshot(Array("|u1", (LIMIT + 1,), bytes(LIMIT + 1))) == f"Array('|u1', ({LIMIT + 1},), {LIMIT + 1} bytes)"


@pytest.mark.parametrize("make", [bytes, lambda size: Array("|u1", (size,), bytes(size))], ids=["bytes", "Array"])
def test_all_together_is_bounded(make):
    kept = snapshot([make(LIMIT) for _ in range(50)])
    data = [getattr(entry, "data", entry) for entry in kept]
    assert 0 < sum(map(len, data)) < _logfields._BUDGET + 5000


def test_keys_that_are_cut_to_the_same_text():
    long = "k" * 300
    copies = snapshot({long + "a": 1, long + "b": 2, long + "c": 3, "x": 4})
    assert list(copies.values()) == [1, 2, 3, 4]
    assert [key[-4:] for key in copies] == ["ore)", " (2)", " (3)", "x"]


def test_a_key_like_that_of_the_rest():
    copies = snapshot({"...": "mine", **dict.fromkeys(range(200), 0)})
    assert copies["..."] == "mine"
    assert copies["... (2)"] == "(101 more)"


def test_keys_of_a_map_for_which_nothing_is_left():
    copies = snapshot([["x" * LIMIT] * 4, {"a": 1, "b": 2}])
    assert len(str(copies)) < 2 * _logfields._BUDGET
