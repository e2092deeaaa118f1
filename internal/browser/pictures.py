"""The worker of the pictures of the debug page."""

import ctypes
import json
import threading
import time
from typing import Iterator

from snakepit_bridge import Worker

worker = Worker()
stock = threading.Lock()


@worker.command
def predict(n: int) -> int:
    """Computes."""
    return sum(score(i) for i in range(n))


def score(i: int) -> int:
    return square(i) % 7


def square(i: int) -> int:
    return i * i


@worker.command
def parse(text: str) -> object:
    """Fails for a text that is not JSON."""
    return json.loads(text)


@worker.command
def export(table: str) -> Iterator[dict]:
    """Streams without an end."""
    n = 0
    while True:
        yield {"table": table, "row": n}
        n += 1
        time.sleep(0.005)


@worker.command
def reserve(item: str) -> None:
    """Waits for ever: it takes a lock that it has."""
    with stock:
        note(item)


def note(item: str) -> None:
    with stock:
        print("reserved", item)


@worker.command
def thumbnail(image: str) -> None:
    """Crashes, as a library in C does."""
    print("reading", image)
    ctypes.string_at(0)


if __name__ == "__main__":
    worker.run()
