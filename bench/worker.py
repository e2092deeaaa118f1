"""Our side of the bench: the handlers that the bare loops and the plain gRPC server are compared with."""

import sys
import time
from contextlib import contextmanager

from snakepit_bridge import ItemError, Worker

worker = Worker(queue=63)  # 64 callers can use it at once


@worker.command
def echo(**args):
    return args


@worker.command
def same(value):
    return value


@worker.command
def fail():
    raise ValueError("it fails on purpose")


@worker.command
def imports():
    """Lists the modules that this worker has imported, without those of this library, in their order."""
    own = {"__main__", "snakepit_bridge"}
    return [name for name in sys.modules if name.partition(".")[0] not in own]


@worker.command
def spin():
    for _ in range(500_000):
        pass


end_of_computing = 0


@worker.command
def compute():
    """Sends an item and computes until it is cancelled."""
    global end_of_computing
    try:
        yield 0
        while True:
            pass
    finally:
        end_of_computing = time.time_ns()


@worker.command
def computed():
    return end_of_computing


@worker.command
def count(n):
    yield from range(n)


@worker.command
def first(work):
    """Sends an item at once and goes on working, like a generator with a slow second item."""
    yield 0
    time.sleep(work)


@worker.command
def produce(n, size):
    """Sends n fresh values of the given size, in bytes."""
    for i in range(n):
        yield i.to_bytes(8, "big") + bytes(size - 8)


@worker.command
def job(n, work, broken=-1, note=None):
    """Works the given seconds for each of n items and sends each at once. Returns the time when the work ended."""
    ended = 0
    with noted(note):
        for i in range(n):
            time.sleep(work)
            ended = time.time_ns()
            yield ItemError(f"item {i} is broken") if i == broken else i
    return ended


@worker.command
def job_at_once(n, work, broken=-1, note=None):
    """Does the same work and returns all items together at its end."""
    items = []
    with noted(note):
        for i in range(n):
            time.sleep(work)
            if i == broken:
                raise ValueError(f"item {i} is broken")
            items.append(i)
    return {"items": items, "ended": time.time_ns()}


@worker.command
def produce_at_once(n, size):
    """Returns the values of produce in one list."""
    return list(produce(n, size))


@contextmanager
def noted(note):
    """Makes the file when the work begins. At the end, also after an exception, writes the time into it.

    Without a note there is no file.
    """
    if note is None:
        yield
        return
    try:
        open(note, "w").close()
        yield
    finally:
        with open(note, "w") as file:
            file.write(f"{time.time_ns()}\n")


if __name__ == "__main__":
    worker.run()
