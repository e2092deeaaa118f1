import os
import time

from snakepit_bridge import ItemError, Worker

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


@worker.command
def train(epochs: int, rate: float = 0.5, *, tag: str = "x"):
    """Trains a model.

    Args:
        epochs: How often.
        rate: How fast.
        tag: What for.
    """
    for epoch in range(epochs):
        time.sleep(0.2)
        yield {"epoch": epoch, "progress": epoch + 1, "total": epochs}
    return "model"


@worker.command
def remember(ctx, word: str) -> list:
    words = ctx.session.state.setdefault("words", []) if ctx.session else ["no session"]
    words.append(word)
    return words


@worker.command
def some_fail(n: int):
    for i in range(n):
        yield ItemError(ValueError(f"item {i} is broken")) if i % 2 else i


if __name__ == "__main__":
    worker.run()
