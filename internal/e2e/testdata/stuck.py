"""A worker whose calls do not end, each in another way."""

import ctypes
import os
import re
import threading
import time

from snakepit_bridge import Worker

worker = Worker(concurrency=int(os.environ.get("TEST_CONCURRENCY", "1")))


@worker.command
def echo(value=None):
    return value


@worker.command
def computes():
    while True:
        sum(range(100))


@worker.command
def sleeps():
    time.sleep(1000)


@worker.command
def waits_for_a_lock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@worker.command
def computes_in_c():
    re.match("(a+)+$", "a" * 100 + "b")  # takes for ever, and holds the interpreter's lock


@worker.command
def waits_in_c():
    receive, _ = os.pipe()
    ctypes.PyDLL(None).read(receive, ctypes.create_string_buffer(1), 1)  # a PyDLL holds the lock, too


@worker.command
def takes_the_signal(number):
    import faulthandler

    faulthandler.unregister(number)


if __name__ == "__main__":
    worker.run()
