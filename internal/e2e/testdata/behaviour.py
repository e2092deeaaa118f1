"""The commands that every adapter is tested with."""

import asyncio
import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from snakepit_bridge import ItemError, RemoteError, Worker, command

worker = Worker(concurrency=int(os.environ.get("TEST_CONCURRENCY", "1")))
cleaned = []


@worker.command
def echo(value):
    return value


@worker.command
def add(a: float, b: float) -> float:
    return a + b


@worker.command
def blob(size: int):
    return b"x" * size


@worker.command
def count(n: int, size: int = 0):
    for i in range(n):
        yield {"i": i, "pad": b"x" * size} if size else i
    return {"sent": n}


@worker.command
def mixed():
    for i in range(5):
        yield ItemError(ValueError(f"odd {i}")) if i % 2 else i


@worker.command
def total(ctx):
    return sum(ctx.input)


@worker.command
def doubled(ctx):
    for value in ctx.input:
        yield 2 * value


@worker.command
def callback(ctx, n: int):
    return ctx.call("plus_one", n)


@worker.command
def callbacks(ctx, n: int):
    return list(ctx.stream("numbers", n))


@worker.command
def remember(ctx, value=None):
    if value is not None:
        ctx.session.state["value"] = value
    return {
        "id": ctx.session.id,
        "value": ctx.session.state.get("value"),
        "meta": dict(ctx.metadata),
        "pid": os.getpid(),
    }


@worker.command
def boom():
    try:
        {}["missing"]
    except KeyError as e:
        raise ValueError("bad operand") from e


class Refused(Exception):
    def __init__(self, message, data):
        super().__init__(message)
        self._data = data

    def snakepit_data(self):
        return self._data


class OutOfStock(Refused, LookupError):
    pass


@worker.command
def order(item):
    data = {"item": item, "left": 3, "price": 4.5, "photo": b"\x00\xff", "large": 2**63}
    raise OutOfStock(f"there is no {item}", data) from KeyError(item)


@worker.command
def orders(items):
    for item in items:
        yield ItemError(Refused(f"there is no {item}", {"item": item}))


@worker.command
def unsendable_data():
    raise Refused("no", {"x": object()})


@worker.command
def asks(ctx, item):
    try:
        ctx.call("stock", item)
    except RemoteError as error:
        return [error.type, error.message, error.data]


@worker.command
def lets_out(ctx, item):
    ctx.call("stock", item)


@worker.command
def unspeakable():
    return {"items": [1, object()]}


@worker.command
def left(ctx):
    return ctx.remaining()


@worker.command
def noisy():
    print("printed")
    os.write(1, b"written to 1\n")
    os.write(2, b"written to 2\n")
    subprocess.run(["sh", "-c", "echo from a child; echo and its errors >&2"], check=True)
    ctypes.CDLL(None).puts(b"from C")
    ctypes.CDLL(None).fflush(None)
    logging.getLogger("app.noise").warning("logged", extra={"answer": 42})
    return "quiet"


@worker.command
def die(how: str):
    if how == "exit":
        os._exit(3)
    if how == "words":
        os.write(2, b"last words\n")
        os._exit(5)
    if how == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "orphan":
        subprocess.Popen(["sleep", "1000"], close_fds=False)
        os._exit(4)


gate = threading.Barrier(4)
arrived = 0


@worker.command
def meet():
    """Returns once four calls of it run at once."""
    gate.wait(60)


@worker.command
async def ameet():
    global arrived
    arrived += 1
    while arrived % 4:
        await asyncio.sleep(0.005)


@worker.command
async def anap(seconds: float):
    await asyncio.sleep(seconds)
    return seconds


@worker.command
async def acount(n: int):
    for i in range(n):
        await asyncio.sleep(0)
        yield i


@worker.command
def hang(how: str):
    try:
        if how == "python":
            while True:
                pass
        elif how == "sleep":
            time.sleep(1000)
        elif how == "socket":
            a, _b = socket.socketpair()
            a.recv(1)
        elif how == "lock":
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()
        elif how == "process":
            subprocess.Popen(["sleep", "1000"]).wait()
    finally:
        cleaned.append(how)


@worker.command
async def ahang():
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        cleaned.append("async")
        raise


@worker.command
def swallow(seconds: float):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except BaseException:  # what no handler should do
            pass


@worker.command
def was_cleaned():
    return cleaned


@worker.command
def info():
    return {
        "pid": os.getpid(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "tokens": [k for k in os.environ if "TOKEN" in k],
        "main": threading.current_thread() is threading.main_thread(),
        "version": list(sys.version_info[:2]),
    }


@worker.service
class Model:
    def setup(self):
        self.loaded = 1

    @command
    def predict(self, x: float):
        return x * 2 + self.loaded


if __name__ == "__main__":
    worker.run()
