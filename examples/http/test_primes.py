"""Tests of the worker without a host."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Iterator

import pytest
import worker as module
from snakepit_bridge import RemoteError, testing


@pytest.fixture
def worker() -> Iterator[testing.Caller]:
    with testing.load(Path(__file__).with_name("worker.py")) as worker:
        yield worker


def plain(limit: int) -> list[int]:
    return [n for n in range(2, limit + 1) if all(n % d for d in range(2, n))]


@pytest.mark.parametrize("limit", range(2, 60))
def test_small_limits(limit: int, worker: testing.Caller) -> None:
    chunks = list(worker.stream("primes", limit=limit))
    assert chunks == [{"progress": 0.0, "count": 0}, {"progress": 100.0, "count": len(plain(limit))}]


# https://oeis.org/A006880
@pytest.mark.parametrize(
    ("limit", "count", "largest"), [(10**4, 1229, 9973), (10**6, 78498, 999983), (10**7, 664579, 9999991)]
)
def test_known_counts(limit: int, count: int, largest: int, worker: testing.Caller) -> None:
    stream = worker.stream("primes", limit=limit)
    chunks = list(stream)
    assert stream.result == {"limit": limit, "count": count, "largest": largest}
    progress = [chunk["progress"] for chunk in chunks]
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (0, 100)
    assert chunks[-1]["count"] == count


def test_every_cut_into_blocks(worker: testing.Caller) -> None:
    expected = plain(400)
    small = module.primes_below(21)
    for low in range(1, 400):
        flags = module.sieve(low, 401, small)
        assert [low + i for i, flag in enumerate(flags) if flag] == [p for p in expected if p >= low]


@pytest.mark.parametrize(
    "factors", [[2], [3], [2, 2], [97], [2, 2, 2, 3, 3, 5], [7, 11, 13], [2, 999983], [997, 997], [2**31 - 1]]
)
def test_factor(factors: list[int], worker: testing.Caller) -> None:
    assert worker.call("factor", n=math.prod(factors)) == factors


@pytest.mark.parametrize("limit", [-5, 1, 10**12 + 1])
def test_bad_limits(limit: int, worker: testing.Caller) -> None:
    with pytest.raises(RemoteError, match=f"ValueError: limit is {limit}, but it must be from 2 to 1000000000000"):
        next(worker.stream("primes", limit=limit))


def test_bad_number(worker: testing.Caller) -> None:
    with pytest.raises(RemoteError, match="ValueError: n is -5, but it must be at least 2"):
        worker.call("factor", n=-5)
