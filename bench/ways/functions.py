"""The functions that are called in four ways. They know nothing of their callers."""

import os
import signal
import subprocess
import time
from contextlib import contextmanager


def echo(**args):
    return args


def chatter(lines):
    """Prints more than a pipe holds, and starts a child that prints."""
    for i in range(lines):
        print("line", i, "of what somebody left in for debugging")
    subprocess.run(["echo", "a child's output"], check=True)
    return lines


def share(total, people):
    """Raises an exception that has a cause, two calls down."""
    try:
        return divide(total, people)
    except ZeroDivisionError as error:
        raise ValueError(f"{total} for {people} people") from error


def divide(total, people):
    return total / people


def work(seconds, note):
    with noted(note):
        time.sleep(seconds)


def ticks(n, seconds, note):
    with noted(note):
        for i in range(n):
            time.sleep(seconds)
            yield i


@contextmanager
def noted(note):
    """Makes the file when the work begins. At the end, also after an exception, writes the time into it."""
    try:
        open(note, "w").close()
        yield
    finally:
        with open(note, "w") as file:
            file.write(f"{time.time_ns()}\n")


def produce(n, size):
    for i in range(n):
        yield i.to_bytes(8, "big") + bytes(size - 8)


def pid():
    return os.getpid()


def crash():
    os.kill(os.getpid(), signal.SIGKILL)
