"""The worker of the quick start. Run it by hand to see its commands."""

import operator
from typing import Iterator, TypedDict

from snakepit_bridge import Worker

worker = Worker()

OPERATIONS = {"add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv}


class Chunk(TypedDict):
    """An item of ping_stream."""

    message: str


@worker.command
def ping() -> str:
    """Answers. This shows that the worker works."""
    return "pong"


@worker.command
def ping_stream(count: int) -> Iterator[Chunk]:
    """Streams: each item reaches Go as soon as it is yielded."""
    for n in range(1, count + 1):
        yield {"message": f"pong {n} of {count}"}


@worker.command
def compute(operation: str, a: float, b: float) -> float:
    """Computes. An exception in it becomes an error in Go, with its traceback."""
    if operation not in OPERATIONS:
        raise ValueError(f"unknown operation {operation!r}; there are {', '.join(OPERATIONS)}")
    return OPERATIONS[operation](a, b)


if __name__ == "__main__":
    worker.run()
