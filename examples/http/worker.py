"""The worker of the web service. Run it by hand to see its commands."""

from math import isqrt
from typing import List

from snakepit_bridge import Worker

worker = Worker()

BLOCK = 1_000_000  # the most numbers that are sieved at once, so memory does not depend on the limit
MOST = 10**12


@worker.command
def primes(ctx, limit: int):
    """Counts the primes up to a limit.

    Args:
        limit: From 2 to MOST.

    Yields:
        progress, in percent, and the count so far. The first chunk comes at once and shows that the limit is accepted.
        One more comes after each of about a hundred blocks, or more for a large limit.

    Returns:
        limit, the count, and the largest prime.
    """
    if not 2 <= limit <= MOST:
        raise ValueError(f"limit is {limit}, but it must be from 2 to {MOST}")
    block = min(max(limit // 100, 1000), BLOCK)
    count = largest = reached = 0
    try:
        yield {"progress": 0.0, "count": 0}
        small = primes_below(isqrt(limit) + 1)
        while reached < limit:
            low, reached = reached + 1, min(reached + block, limit)
            flags = sieve(low, reached + 1, small)
            count += flags.count(1)
            largest = max(largest, low + flags.rfind(1))
            yield {"progress": round(100 * reached / limit, 1), "count": count}
        return {"limit": limit, "count": count, "largest": largest}
    finally:  # also when the browser has left: then Cancelled was raised somewhere above
        ctx.logger.info("primes has ended", extra={"limit": limit, "reached": reached})


@worker.command
def factor(n: int) -> List[int]:
    """Returns the prime factors of a number by trial division. This takes too long if two of them are large."""
    if n < 2:
        raise ValueError(f"n is {n}, but it must be at least 2")
    factors = []
    divisor = 2
    while divisor * divisor <= n:
        while n % divisor == 0:
            factors.append(divisor)
            n //= divisor
        divisor += 1 if divisor == 2 else 2
    return [*factors, n] if n > 1 else factors


def sieve(low: int, high: int, small: List[int]) -> bytearray:
    """Returns a 1 for each prime and a 0 for each other number of range(low, high). low is at least 1."""
    flags = bytearray(b"\1") * (high - low)
    if low == 1:
        flags[0] = 0
    for prime in small:
        if prime * prime >= high:
            break
        first = max(prime * prime, -(-low // prime) * prime) - low
        flags[first::prime] = bytes(len(range(first, high - low, prime)))
    return flags


def primes_below(n: int) -> List[int]:
    """Returns the primes below n."""
    if n <= 2:
        return []
    flags = sieve(1, n, primes_below(isqrt(n) + 1))
    return [number for number, flag in enumerate(flags, start=1) if flag]


if __name__ == "__main__":
    worker.run()
