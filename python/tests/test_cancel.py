"""Cancelling what runs: what blocks, what is deferred, and that an interrupt never leaves its call."""

import random

import conftest
import pytest

HANDLERS = """
    import os, select, socket, subprocess, sys, threading, time
    from queue import Queue

    def loop():
        n = 0
        while True: n += 1
    def sleep(): time.sleep(1000)
    def recv():
        ours, theirs = socket.socketpair()
        ours.recv(1)
    def accept():
        server = socket.socket(); server.bind(("127.0.0.1", 0)); server.listen(); server.accept()
    def lock():
        lock = threading.Lock(); lock.acquire(); lock.acquire()
    def condition(): threading.Event().wait()
    def get(): Queue().get()
    def wait(): subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE).wait()
    def read(): os.read(os.pipe()[0], 1)
    def polling(): select.select([], [], [])
    def catches():
        while True:
            try: time.sleep(0.01)
            except Exception: pass

    after = []
    @worker.command
    def block(ctx, how):
        try:
            print("started")
            globals()[how]()
        finally:
            after.append(how)
    @worker.command
    def echo(x): return [x, after]
"""

BLOCKING = ["loop", "sleep", "recv", "accept", "lock", "condition", "get", "wait", "read", "polling", "catches"]


def start(host, name, body=None):
    """Opens a call and waits until its handler has printed a line."""
    id = host.open(name, body, flags=0)
    host.wait_line("started")
    return id


@pytest.mark.parametrize("before", ["", conftest.EXECUTORS["reader"][1], "@worker.command\nasync def a(): pass\n"])
def test_whatever_blocks_the_main_thread_is_interrupted(serve, before):
    import textwrap

    host = serve(before + textwrap.dedent(HANDLERS))
    for n, how in enumerate(BLOCKING):
        id = start(host, "block", how)
        host.cancel(id, "deadline exceeded")
        frame = host.answer(id)
        assert frame["kind"] == "error", how
        assert frame["body"] == {"type": "Cancelled", "message": "deadline exceeded"}
        assert host.call("echo", n) == [n, BLOCKING[: n + 1]]


SLOW_CODEC = """
    from queue import SimpleQueue
    from snakepit_bridge import _codecs
    from snakepit_bridge._calls import CURRENT

    codec, ran = _codecs.get_codec("json"), []
    decode = codec.decode
    def slow(body):
        value = decode(body)
        if value == "slow":
            cancelled = SimpleQueue()
            CURRENT.get().waiters.append(cancelled)
            print("started")
            cancelled.get(timeout=20)
        return value
    codec.decode = slow

    @worker.command
    def quick(x): ran.append(x)
    @worker.command
    def seen(): return ran
"""


def test_a_handler_does_not_begin_after_a_cancel_that_came_while_its_arguments_were_decoded(each_executor):
    import textwrap

    host = each_executor(textwrap.dedent(SLOW_CODEC), protocol="jsonstdio")
    id = start(host, "quick", "slow")
    host.cancel(id)
    assert host.answer(id)["body"]["type"] == "Cancelled"
    assert host.call("seen") == []


def test_threads_are_interrupted_where_python_runs(serve):
    import textwrap

    host = serve(textwrap.dedent(HANDLERS), "concurrency=2")
    for how in ("loop", "catches"):
        id = start(host, "block", how)
        host.cancel(id)
        assert host.answer(id)["body"]["type"] == "Cancelled"
    assert host.call("echo", 1) == [1, ["loop", "catches"]]


def test_contexts_wait_until_a_cancel(each_executor):
    host = each_executor(
        """
        @worker.command
        def inputs(ctx):
            print("started")
            return list(ctx.input)
        @worker.command
        def calls(ctx):
            print("started")
            return ctx.call("never")
        @worker.command
        def items(ctx):
            print("started")
            return list(ctx.stream("never"))
        """
    )
    for name in ("inputs", "calls", "items"):
        id = start(host, name)
        host.cancel(id)
        assert host.answer(id)["body"]["type"] == "Cancelled"


def test_what_cleans_up_after_a_context_is_left_alone(each_executor):
    host = each_executor(
        """
        import time
        @worker.command
        def cleans(ctx, how):
            try:
                print("started")
                list(ctx.input) if how == "input" else ctx.call("never")
            finally:
                for _ in range(50): time.sleep(0.001)  # some of the housekeeper's ticks
                print("cleaned")
        """
    )
    for how in ("input", "call"):
        id = start(host, "cleans", how)
        host.cancel(id)
        assert host.answer(id)["body"]["type"] == "Cancelled"
    assert host.bye() == 0
    assert host.printed == ["started", "cleaned"] * 2


def test_what_cleans_up_after_check_in_async_code_is_left_alone(serve):
    host = serve(
        """
        import asyncio
        @worker.command
        async def cleans(ctx):
            try:
                print("started")
                while True: ctx.check()  # without an await, so that the loop can't tell it first
            finally:
                for _ in range(50): await asyncio.sleep(0.001)
                print("cleaned")
        """
    )
    for _ in range(5):
        id = start(host, "cleans")
        host.cancel(id)
        assert host.answer(id)["body"]["type"] == "Cancelled"
    assert host.bye() == 0
    assert host.printed == ["started", "cleaned"] * 5


def test_a_generator_that_waits_for_credit_is_closed(each_executor):
    host = each_executor(
        """
        closed = []
        @worker.command
        def count():
            try:
                n = 0
                while True:
                    yield n
                    n += 1
            except GeneratorExit:
                closed.append("closed")
                raise
        @worker.command
        def was_closed(): return closed
        """,
        hello={"window": {"items": 2, "bytes": 1000}},
    )
    id = host.open("count")
    assert [host.wait_for("item", id)["body"] for _ in range(2)] == [0, 1]
    host.cancel(id)
    assert host.answer(id)["body"]["type"] == "Cancelled"
    assert host.call("was_closed") == ["closed"]


def test_an_unread_generator_is_interrupted_at_a_yield(each_executor):
    host = each_executor(
        """
        @worker.command
        def ignores():
            while True:
                try:
                    yield 1
                except GeneratorExit:
                    pass
        @worker.command
        def cleans():
            try:
                while True: yield 1
            finally:
                print("cleaned")
        @worker.command
        def echo(): return 1
        """
    )
    id = host.open("cleans")
    host.wait_for("item", id)
    host.cancel(id)
    assert host.answer(id)["body"]["type"] == "Cancelled"
    id = host.open("ignores")
    host.wait_for("item", id)
    host.cancel(id)
    error = host.answer(id)["body"]
    # A cancel inside of the generator's own code reaches no yield.
    assert error["type"] in ("RuntimeError", "Cancelled")
    assert host.call("echo") == 1


def test_async_handlers_get_cancelled_error(serve):
    host = serve(
        """
        import asyncio
        seen = []
        @worker.command
        async def wait(ctx):
            try:
                print("started")
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                seen.append("wait")
                raise
        @worker.command
        async def spin(ctx):
            try:
                print("started")
                while True: pass
            finally:
                seen.append("spin")
        @worker.command
        async def finishes(ctx):
            try:
                print("started")
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                return "all the same"
        @worker.command
        async def count(ctx):
            try:
                print("started")
                while True:
                    yield 1
                    await asyncio.sleep(0)
            finally:
                await asyncio.sleep(0)
                seen.append("count")
        @worker.command
        async def inputs(ctx):
            print("started")
            return [x async for x in ctx.input]
        @worker.command
        async def told(): return seen
        """
    )
    for name in ("wait", "spin", "count", "inputs"):
        id = start(host, name)
        host.cancel(id, "enough")
        assert host.answer(id)["body"] == {"type": "Cancelled", "message": "enough"}, name
    id = start(host, "finishes")
    host.cancel(id)
    assert host.answer(id)["body"] == "all the same"
    assert host.call("told") == ["wait", "spin", "count"]
    assert host.bye() == 0


def test_only_the_cancel_of_a_cancelled_call_is_answered_as_one(each_executor):
    host = each_executor(
        """
        import concurrent.futures
        @worker.command
        def cleans(ctx):
            try:
                print("started")
                ctx.call("never")
            finally:
                raise OSError("disk full")
        @worker.command
        def gives_up(): raise concurrent.futures.CancelledError("of its own")
        """
    )
    id = start(host, "cleans")
    host.cancel(id)
    error = host.answer(id)["body"]
    assert (error["type"], error["message"]) == ("OSError", "disk full")
    assert (error["context"]["module"], error["context"]["type"]) == ("snakepit_bridge", "Cancelled")
    error = host.fail("gives_up")
    assert (error["module"].split(".")[0], error["type"]) == ("concurrent", "CancelledError")
    assert error["message"] == "of its own"


def test_a_cancelled_call_that_waits_in_the_queue_is_answered_at_once(serve):
    host = serve(
        """
        ran = []
        @worker.command
        def hold(ctx):
            print("started")
            list(ctx.input)
        @worker.command
        def note(): ran.append(1)
        @worker.command
        def told(): return ran
        """,
        "queue=1",
    )
    first = start(host, "hold")
    second = host.open("note")
    host.cancel(second)
    frame = host.answer(second)
    assert (frame["flags"], frame["body"]["type"]) == (4, "Cancelled")
    host.send("end", id=first)
    assert host.answer(first)["kind"] == "end"
    assert host.call("told") == []


def test_a_swallowed_interrupt_is_repeated(serve):
    host = serve(
        """
        import time
        @worker.command
        def stubborn(ctx):
            try:
                print("started")
                time.sleep(1000)
            except:
                print("swallowed")
            time.sleep(1000)
        """
    )
    id = start(host, "stubborn")
    host.cancel(id)
    assert host.answer(id)["body"]["type"] == "Cancelled"
    assert host.bye() == 0  # what it printed has come
    assert host.printed == ["started", "swallowed"]


def test_imports_and_logging_are_not_interrupted(serve, tmp_path):
    (tmp_path / "slow_module.py").write_text("import time\nprint('started')\ntime.sleep(0.3)\ndone = True\n")
    host = serve(
        """
        import logging, time
        class Slow(logging.Handler):
            def emit(self, record):
                print("started")
                time.sleep(0.3)
                print("logged")
        logging.getLogger("slow").addHandler(Slow())
        @worker.command
        def imports(ctx):
            import slow_module
            assert slow_module.done
            while True: time.sleep(1)
        @worker.command
        def logs(ctx):
            logging.getLogger("slow").warning("x")
            while True: time.sleep(1)
        @worker.command
        def imported():
            import slow_module
            return slow_module.done
        """
    )
    for name in ("imports", "logs"):
        id = start(host, name)
        host.cancel(id)
        error = host.answer(id)["body"]
        assert error["type"] == "Cancelled", error
    assert host.call("imported") is True
    assert host.bye() == 0  # what it printed has come
    assert "logged" in host.printed


def test_remaining_time_and_the_flag_are_seen(serve):
    host = serve(
        """
        @worker.command
        def polite(ctx):
            assert 0 < ctx.remaining() <= 60
            ctx.call("never")
        @worker.command
        def in_thread(ctx):
            import threading
            seen = []
            def work():
                while not ctx.cancelled: pass
                try: ctx.check()
                except Cancelled as exc: seen.append(str(exc))
            # A daemon: before 3.9.8 an interrupted join would keep the process from ending.
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            try:
                print("started")
                thread.join()
            finally:
                while not seen: pass
                print(seen)
        """
    )
    id = host.open("polite", ttl=60000)
    call = host.wait_for("call")
    assert 0 < call["ttl"] <= 60000
    host.cancel(id)
    assert host.answer(id)["body"]["type"] == "Cancelled"
    id = start(host, "in_thread")
    host.cancel(id, "now")
    assert host.answer(id)["body"]["type"] == "Cancelled"
    host.bye()
    assert host.printed == ["started", "['now']"]


FUZZ = """
    import asyncio, time
    def total(n):
        x = 0
        for i in range(n): x += i
        return x
    @worker.command
    def spin(n): return total(n)
    @worker.command
    def chat(n):
        for i in range(n): yield i
        return n
    @worker.command
    def nap(n):
        time.sleep(n / 1e7)
        return n
"""
ASYNC_FUZZ = """
    @worker.command
    async def spin_async(n):
        await asyncio.sleep(0)
        return total(n)
    @worker.command
    async def chat_async(n):
        for i in range(n):
            yield i
            await asyncio.sleep(0)
"""


@pytest.mark.parametrize("options", ["queue=3", "concurrency=4", "async", "async concurrency=4"])
def test_a_cancel_never_hits_another_call(serve, options):
    """Random calls and cancels: each call has exactly one answer, the right one. Only cancelled ones are Cancelled."""
    is_async = options.startswith("async")
    host = serve(FUZZ + (ASYNC_FUZZ if is_async else ""), options.replace("async", "").strip() or "queue=3")
    names = ["spin", "chat", "nap"] + (["spin_async", "chat_async"] if is_async else [])
    rng = random.Random(options)
    flying, cancelled, answered = {}, set(), 0

    def collect():
        nonlocal answered
        frame = host.recv()
        if frame["kind"] == "item":
            assert frame["id"] in flying
            return
        name, n = flying.pop(frame["id"])
        answered += 1
        if frame["kind"] == "error":
            assert frame["id"] in cancelled, (name, n, frame)
            assert frame["body"]["type"] == "Cancelled", frame
        else:
            assert frame["body"] == {"spin": sum(range(n)), "chat_async": None}.get(
                name.replace("spin_async", "spin"), n
            ), (name, n, frame)

    for _ in range(1500):
        while len(flying) >= 4:
            collect()
        name = rng.choice(names)
        n = rng.randrange(0, 20000) if "spin" in name or name == "nap" else rng.randrange(0, 40)
        id = host.open(name, n)
        flying[id] = name, n
        if rng.random() < 0.4:
            for _ in range(rng.randrange(0, 5000)):  # a random moment
                pass
            cancelled.add(id)
            for _ in range(rng.choice((1, 2))):
                host.cancel(id)
    while flying:
        collect()
    assert answered == 1500
    assert host.bye() == 0
    assert host.printed == []
