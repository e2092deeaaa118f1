"""Our side of the bench: the handlers that the bare loops and the plain gRPC server are compared with."""

import time

from snakepit_bridge import Worker

worker = Worker(queue=63)  # so that 64 callers can all be with it at once


@worker.command
def echo(**args):
    return args


@worker.command
def count(n):
    yield from range(n)


@worker.command
def first(work):
    """Sends an item at once and goes on working, as a generator does whose next item takes a while."""
    yield 0
    time.sleep(work)


@worker.command
def produce(n, size):
    """Sends n fresh values of so many bytes."""
    for i in range(n):
        yield i.to_bytes(8, "big") + bytes(size - 8)


if __name__ == "__main__":
    worker.run()
