import os
import time

from snakepit_bridge import Worker

worker = Worker()


@worker.command
def add(a, b):
    return a + b


@worker.command
def echo(value):
    return value


@worker.command
def count(n: int):
    yield from range(n)
    return "done"


@worker.command
def say(text):
    print(text)


@worker.command
def fail():
    raise ValueError("bad operand")


@worker.command
def sleep():
    time.sleep(3600)


@worker.command
def die():
    os._exit(7)


if __name__ == "__main__":
    worker.run()
