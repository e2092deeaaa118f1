"""A worker like any other: it does not know which transport carries its calls.

The transport is in the same directory, where the host's adapter finds it.
"""

from __future__ import annotations

from snakepit_bridge import Worker

worker = Worker()


@worker.command
def add(a: float, b: float) -> float:
    """Adds two numbers."""
    return a + b


if __name__ == "__main__":
    worker.run()
