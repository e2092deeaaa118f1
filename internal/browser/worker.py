"""The worker of the debug page's test."""

import time
from typing import Iterator

from snakepit_bridge import Worker

worker = Worker()


@worker.command
def quick(n: int) -> int:
    """Answers at once."""
    return n + 1


@worker.command
def stuck(seconds: float) -> None:
    """Waits where no cancel reaches it."""
    time.sleep(seconds)


@worker.command
def burn(seconds: float) -> int:
    """Uses a processor."""
    end, n = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        n += inner_work()
    return n


def inner_work() -> int:
    """What a flame graph has to show."""
    return sum(i % 3 for i in range(1000))


@worker.command
def broken(text: str) -> None:
    """Fails."""
    raise ValueError(text)


@worker.command
def numbers(pause: float) -> Iterator[int]:
    """Streams without an end."""
    n = 0
    while True:
        yield n
        n += 1
        time.sleep(pause)


if __name__ == "__main__":
    worker.run()
