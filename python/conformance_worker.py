"""The worker for a host's conformance suite. It has the commands that docs/protocol.md lists under "Conformance".

Its argument is the number of calls that it takes at once.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from typing import Any, Dict, Iterator, List, Optional

from snakepit_bridge import Context, ItemError, Session, Worker

worker = Worker(concurrency=int(sys.argv[1]) if len(sys.argv) > 1 else 1)


@worker.on_snapshot
def snapshot(session: Session) -> Dict[str, Any]:
    """Returns the state that the host keeps."""
    return dict(session.state)


@worker.command(name="conformance.echo")
def echo(value: Any = None) -> Any:
    """Returns its argument."""
    return value


class Failure(ValueError):
    """An error that gives data to programs."""

    def __init__(self, message: str, data: Any) -> None:
        super().__init__(message)
        self.snakepit_data = data


@worker.command(name="conformance.count")
def count(n: int, size: int = 0, fail: bool = False) -> Iterator[Any]:
    """Streams the integers from 0 to n-1, or n times that many bytes; then fails, if asked to."""
    for i in range(n):
        yield b"x" * size if size else i
    if fail:
        raise RuntimeError(f"failed after {n} items, as asked")
    return {"sent": n}


@worker.command(name="conformance.mixed")
def mixed(n: int) -> Iterator[Any]:
    """Streams the integers from 0 to n-1, the odd ones as failed items."""
    for i in range(n):
        yield ItemError(ValueError(f"{i} is odd")) if i % 2 else i


@worker.command(name="conformance.fail")
def fail(message: str, data: Any = None) -> None:
    """Raises an error with that message and data, from another one."""
    try:
        raise LookupError("the cause")
    except LookupError as cause:
        raise Failure(message, data) from cause


@worker.command(name="conformance.wait")
def wait() -> None:
    """Goes on until it is cancelled."""
    while True:  # in a thread of a pool, only running Python code can be interrupted
        time.sleep(0.01)


@worker.command(name="conformance.sum")
def sum_input(ctx: Context) -> int:
    """Returns the sum of the input without its failed items."""
    return sum(value for value in ctx.input if not isinstance(value, ItemError))


@worker.command(name="conformance.double")
def double(ctx: Context) -> Iterator[Any]:
    """Streams twice each input, as it comes."""
    for value in ctx.input:
        yield 2 * value


@worker.command(name="conformance.first")
def first(ctx: Context) -> Any:
    """Returns the first input, and takes no more."""
    return next(ctx.input)


@worker.command(name="conformance.context")
def context(ctx: Context) -> Dict[str, Any]:
    """Returns the call's session, metadata and remaining time."""
    return {
        "session": ctx.session.id if ctx.session else None,
        "metadata": dict(ctx.metadata),
        "remaining": ctx.remaining(),
    }


@worker.command(name="conformance.remember")
def remember(ctx: Context, value: Any = None) -> Any:
    """Keeps a value in the session's state, if one is given, and returns the value there."""
    if ctx.session is None:
        return None
    if value is not None:
        ctx.session.state["value"] = value
    return ctx.session.state.get("value")


@worker.command(name="conformance.callback")
def callback(ctx: Context, name: str, value: Any = None) -> Any:
    """Calls a function of the host and returns its result."""
    return ctx.call(name, value)


@worker.command(name="conformance.callbacks")
def callbacks(ctx: Context, name: str, value: Any = None) -> List[Any]:
    """Calls a function of the host and returns the list of its items."""
    return list(ctx.stream(name, value))


@worker.command(name="conformance.log")
def log(level: str, message: str) -> None:
    """Logs one record, with a field answer=42."""
    logging.getLogger("conformance").log(
        getattr(logging, {"warn": "WARNING"}.get(level, level.upper())), message, extra={"answer": 42}
    )


@worker.command(name="conformance.print")
def print_text(text: str, times: int = 1) -> None:
    """Prints a text so many times to standard output, and once to standard error."""
    for _ in range(times):
        sys.stdout.write(text)
    sys.stdout.flush()
    sys.stderr.write(text)
    sys.stderr.flush()


@worker.command(name="conformance.child")
def child() -> List[str]:
    """Returns the names of the variables that a child of this process sees and that begin with SNAKEPIT_."""
    code = "import os; print(*(name for name in os.environ if name.startswith('SNAKEPIT_')))"
    return subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout.decode().split()


@worker.command(name="conformance.orphan")
def orphan(holds: bool = False) -> None:
    """Leaves a child behind, in a session of its own.

    The child is a fork, or a program that has every descriptor of this process.
    """
    if holds:
        for descriptor in range(3, 256):
            try:
                os.set_inheritable(descriptor, True)
            except OSError:  # there is no such descriptor
                pass
        sleep = [sys.executable, "-c", "import time; time.sleep(20)"]
        subprocess.Popen(
            sleep, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, close_fds=False, start_new_session=True
        )
    elif os.fork() == 0:
        os.setsid()
        time.sleep(20)
        os._exit(0)


@worker.command(name="conformance.exit")
def exit_process(code: int) -> None:
    """Ends the process at once."""
    os._exit(code)


@worker.command(name="conformance.unsendable")
def unsendable() -> Dict[str, Optional[object]]:
    """Returns a value that can't be sent."""
    return {"culprit": object()}


if __name__ == "__main__":
    worker.run()
