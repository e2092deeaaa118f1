"""A counter for each session, whose state survives its worker."""

import asyncio
import os
import signal
import sys

from snakepit_bridge import Session, Worker

worker = Worker(concurrency=int(os.environ.get("TEST_CONCURRENCY", "1")))
refuse = os.environ.get("TEST_REFUSE", "")  # a restore fails while this file is there


class Counter:
    """A state that is no map."""

    def __init__(self, n=0, keep=None):
        self.n = n
        self.keep = keep


def counter(ctx):
    return ctx.session.state.setdefault("counter", Counter())


@worker.on_snapshot
def snapshot(session: Session):
    found = session.state.get("counter")
    if session.state.get("deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    if session.state.get("bad"):
        raise ValueError("this state can't be kept")
    return [found.n, found.keep] if found else None


@worker.on_restore
def restore(session: Session, value):
    if os.path.exists(refuse):
        raise RuntimeError("no room for the state")
    if value is not None:
        session.state["counter"] = Counter(*value)


@worker.command
def add(ctx, fail=False):
    found = counter(ctx)
    found.n += 1
    if fail:
        raise ValueError(f"failed at {found.n}")
    return found.n


@worker.command
def add_each(ctx, n: int):
    for _ in range(n):
        yield add(ctx)


@worker.command
def add_and_ask(ctx):
    """Adds one, and then whatever a function of the host says."""
    found = counter(ctx)
    found.n += 1
    found.n += ctx.call("host.more")
    return found.n


@worker.command
def add_and_wait(ctx):
    counter(ctx).n += 1
    ctx.call("host.wait")


@worker.command
def add_and_die(ctx, when: str):
    counter(ctx).n += 1
    if when == "in the handler":
        os.kill(os.getpid(), signal.SIGKILL)
    ctx.session.state["deadly"] = True


@worker.command
def keep(ctx, value=None, size: int = 0):
    found = counter(ctx)
    if value is not None:
        found.keep = value
    if size:
        found.keep = b"x" * size
    return len(found.keep) if isinstance(found.keep, bytes) else found.keep


@worker.command
def spoil(ctx, bad: bool):
    ctx.session.state["bad"] = bad


if "TEST_ASYNC" in os.environ:

    @worker.command
    async def add_async(ctx):
        await asyncio.sleep(0)
        return add(ctx)


if __name__ == "__main__":
    sys.exit(worker.run())
