"""Commands whose values, errors and log records do what nobody expects of them.

BORDER_MODE is "plain" (one handler at a time), "threads" (four) or "async".
"""

import asyncio
import functools
import logging
import os
import sys
import time

from snakepit_bridge import ItemError, Worker

MODE = os.environ.get("BORDER_MODE", "plain")
worker = Worker(concurrency=1 if MODE == "plain" else 4)
log = logging.getLogger("border")


def command(function):
    """Registers a plain function, in the async mode as an async one."""
    if MODE != "async":
        return worker.command(function)

    @functools.wraps(function)
    async def handler(*args, **kwargs):
        return function(*args, **kwargs)

    return worker.command(handler)


class Odd:
    """User code: each of its methods does the same."""

    def __init__(self, how):
        self.how = how

    def act(self):
        if self.how == "raises":
            raise ValueError("odd")
        if self.how == "exits":
            sys.exit(3)
        if self.how == "interrupts":
            raise KeyboardInterrupt
        if self.how == "recurses":
            return self.act()
        if self.how == "hangs":
            while True:
                time.sleep(0.01)
        if self.how == "calls back":
            log.info("called back")
            return "called back"
        return 5  # nonsense

    def __str__(self):
        return self.act()

    __repr__ = __str__

    def model_dump(self):  # how results of pydantic are read
        return self.act()


class OddError(Exception):
    def __init__(self, how):
        super().__init__(how)
        self.odd = Odd(how)

    def __str__(self):
        return self.odd.act()

    __repr__ = __str__

    @property
    def exceptions(self):
        return self.odd.act()

    @property
    def __notes__(self):
        return self.odd.act()


@command
def echo(value):
    return value


@command
def fails(how: str):
    raise OddError(how)


@command
def logs(how: str):
    log.warning("a record", extra={"row": Odd(how), "fine": 1})
    log.warning("its argument is %s", Odd(how))
    log.warning(Odd(how))
    try:
        raise OddError(how)
    except OddError:
        log.exception("an exception")
    log.warning("the last")
    return "logged"


@command
def result(how: str):
    return {"deep": [Odd(how)]}


if MODE == "async":

    @worker.command
    async def items(how: str):
        yield 1
        yield ItemError(OddError(how)) if how in ("raises", "nonsense") else Odd(how)
        yield 2

    @worker.command
    async def total(ctx):
        n = 0
        async for value in ctx.input:
            await asyncio.sleep(0)
            n += value
        return n

    @worker.command
    async def ask(ctx, name: str):
        return await ctx.call(name)

    @worker.command
    async def asks(ctx, name: str):
        return [value async for value in ctx.stream(name)]

else:

    @worker.command
    def items(how: str):
        yield 1
        yield ItemError(OddError(how)) if how in ("raises", "nonsense") else Odd(how)
        yield 2

    @worker.command
    def total(ctx):
        return sum(ctx.input)

    @worker.command
    def ask(ctx, name: str):
        return ctx.call(name)

    @worker.command
    def asks(ctx, name: str):
        return list(ctx.stream(name))


@command
def prints(text: str):
    print(text, flush=True)
