"""What ends a worker, or does not: exceptions outside of handlers, sys.exit, and signal handlers of the program's."""

import signal

import pytest

EXITS = """
import asyncio, os, signal, sys, threading
import atexit
atexit.register(print, "at exit")

@worker.service
class Service:
    @command
    def one(self): return 1
    def close(self): print("closed")

codes = [None]
def end(*_):
    if codes[0] == "interrupt": raise KeyboardInterrupt
    sys.exit(codes[0])
signal.signal(signal.SIGTERM, end)

@worker.command
def arm(code):
    codes[:] = [code]
"""

CODES = [(3, 3), (0, 0), (None, 0), ("told to", 1), (True, 1), (259, 3), ("interrupt", 130)]


@pytest.mark.parametrize("code, status", CODES)
def test_a_signal_handler_that_exits_ends_an_idle_worker(each_executor, code, status):
    host = each_executor(EXITS)
    host.call("arm", {"code": code})
    host.process.send_signal(signal.SIGTERM)
    assert host.wait() == status
    said = "KeyboardInterrupt" if code == "interrupt" else "sys.exit()" if code is None else f"sys.exit({code!r})"
    assert host.printed[0].startswith(f"snakepit_bridge: {said} in end (")
    assert host.printed[0].endswith(" ends this worker")
    assert host.printed[1:] == ["closed", "at exit"]
    assert not any(frame and frame["kind"] == "error" for frame in host.frames.queue)


def test_a_signal_handler_that_exits_ends_a_worker_on_each_transport(everywhere):
    host = everywhere(EXITS)
    host.call("arm", {"code": 3})
    host.process.send_signal(signal.SIGTERM)
    assert host.wait() == 3
    assert not any(frame and frame["kind"] == "error" for frame in host.frames.queue)


@pytest.mark.parametrize("kind", ["SystemExit(3)", "KeyboardInterrupt()"])
def test_an_exit_in_a_task_that_is_no_handlers_ends_the_worker(each_transport, kind):
    host = each_transport(
        EXITS
        + f"""
@worker.command
async def parse():
    async def sub():
        raise {kind}
    await asyncio.gather(asyncio.create_task(sub()))
    await asyncio.sleep(60)

@worker.command
async def background():
    async def sub():
        raise {kind}
    background.task = asyncio.create_task(sub())
"""
    )
    host.open("parse")
    assert host.wait() == (3 if "3" in kind else 130)
    assert "sub" in host.printed[0]
    assert host.printed[0].endswith(" ends this worker")
    assert host.printed[1:] == ["closed", "at exit"]


def test_an_exit_in_a_handler_is_that_call_s_error(everywhere):
    host = everywhere(EXITS + "\n@worker.command\ndef leave():\n    sys.exit(3)\n")
    assert host.fail("leave")["type"] == "SystemExit"
    assert host.call("one") == 1
    assert host.bye() == 0


RAISES = """
import signal, threading
class Odd(OSError):
    def __str__(self): raise KeyError("no text")
def handle(number, frame):
    errors = [ValueError("from a signal handler"), OSError(5, "odd"), TimeoutError(), Odd()]
    raise {type(error): error for error in errors}[kinds[0]]
kinds = [ValueError]
names = {kind.__name__: kind for kind in (ValueError, OSError, TimeoutError, Odd)}
signal.signal(signal.SIGUSR1, handle)

@worker.command
def choose(kind):
    kinds[0] = names[kind]
    return signal.getsignal(signal.SIGUSR1) is handle

@worker.command
def echo(x): return x

@worker.command
def count(n):
    yield from range(n)

@worker.command
def ask(ctx): return ctx.call("f", 1)

@worker.command
def take(ctx): return list(ctx.input)

@worker.command
def hold():
    print("held", flush=True)
    threading.Event().wait(60)
"""


def test_a_signal_handler_that_raises_between_calls_ends_nothing(everywhere):
    host = everywhere(RAISES)
    for kind in ("ValueError", "OSError", "TimeoutError", "Odd"):
        assert host.call("choose", kind) is True
        host.process.send_signal(signal.SIGUSR1)
        host.wait_line(
            f"snakepit_bridge: the handler of signal {int(signal.SIGUSR1)} raised between calls; the worker goes on"
        )
        assert host.call("echo", 5) == 5
    assert host.bye() == 0
    assert "ValueError: from a signal handler" in host.printed


ON_MAIN = ("leader", "reader", "loop")


@pytest.mark.parametrize("command, waits_for", [("hold", None), ("ask", "call"), ("take", None)])
def test_a_signal_handler_that_raises_in_a_call_is_its_error(each_executor, command, waits_for):
    host = each_executor(RAISES)
    if host.executor not in ON_MAIN:
        pytest.skip("handlers do not run on the main thread")
    id = host.open(command, flags=0 if command == "take" else 1)
    if command == "hold":
        host.wait_line("held")
    elif waits_for:
        host.wait_for(waits_for)
    else:
        host.send("item", 1, id=id)
        while not running(host, command):
            pass
    host.process.send_signal(signal.SIGUSR1)
    frame = host.answer(id)
    assert (frame["kind"], frame["body"]["type"], frame["body"]["message"]) == (
        "error",
        "ValueError",
        "from a signal handler",
    )
    assert host.call("echo", 5) == 5
    assert host.bye() == 0


def running(host, name):
    host.send("ping", id=1)
    return any(call["name"] == name for call in host.wait_for("pong")["body"]["running"])


def test_a_storm_of_signals_loses_no_answer(everywhere):
    host = everywhere(RAISES, hello={"window": {"items": 10**6, "bytes": 10**9}})
    answers = 0
    for round in range(40):
        ids = [host.open("count", 200)]
        for _ in range(5):
            host.process.send_signal(signal.SIGUSR1)
        for id in ids:
            frame = host.answer(id)
            assert frame["kind"] == "end" or frame["body"]["type"] == "ValueError", frame
            answers += 1
        while True:  # a signal may still hit this one
            frame = host.answer(host.open("echo", round))
            if frame["kind"] == "end":
                break
            assert frame["body"]["type"] == "ValueError"
        assert frame["body"] == round
    assert answers == 40
    host.others.clear()
    assert host.bye() == 0
    assert not any("internal error" in line or "protocol error" in line for line in host.printed)
