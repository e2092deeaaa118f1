"""Calls, streams and sessions, with real processes, in each way of running handlers."""

import pytest


def test_what_an_argument_becomes(each_executor):
    host = each_executor(
        """
        @worker.command
        def echo(*args, **kwargs): return [args, kwargs]
        @worker.command
        def ctx_first(ctx, a=0): return [type(ctx).__name__, a]
        @worker.command
        def ctx_last(a, ctx): return [a, type(ctx).__name__]
        @worker.command
        def ctx_keyword(*, a=1, ctx): return [a, type(ctx).__name__]
        """
    )
    assert host.call("echo") == [[], {}]
    assert host.call("echo", {"a": 1}) == [[], {"a": 1}]
    assert host.call("echo", [1, 2]) == [[[1, 2]], {}]
    assert host.call("echo", "text") == [["text"], {}]
    assert host.call("ctx_first") == ["Context", 0]
    assert host.call("ctx_first", {"a": 5}) == ["Context", 5]
    assert host.call("ctx_first", 5) == ["Context", 5]
    assert host.call("ctx_last", 5) == [5, "Context"]
    assert host.call("ctx_last", {"a": 5}) == [5, "Context"]
    assert host.call("ctx_keyword", {"a": 2}) == [2, "Context"]
    assert "can't be an argument's name" in host.fail("ctx_first", {"ctx": 1})["message"]
    assert host.bye() == 0


def test_generators_stream(each_executor):
    host = each_executor(
        """
        @worker.command
        def count(n):
            for i in range(n):
                yield i if i != 1 else ItemError(KeyError("one"))
            return "done"
        @worker.command
        def none():
            yield None
        """
    )
    id = host.open("count", 3)
    assert host.answer(id)["body"] == "done"
    items = [frame for frame in host.others if frame["kind"] == "item"]
    assert [frame["body"] for frame in items[::2]] == [0, 2]
    assert items[1]["flags"] == 2
    assert items[1]["body"]["type"] == "KeyError"
    id = host.open("none")
    assert host.wait_for("item", id)["body"] is None
    end = host.answer(id)
    assert end["kind"] == "end"
    assert end["body"] is None


def test_async_handlers(serve):
    host = serve(
        """
        import asyncio
        @worker.command
        async def fetch(ctx, url):
            await asyncio.sleep(0)
            return [url, type(ctx).__name__]
        @worker.command
        async def count(n):
            for i in range(n):
                yield i
        @worker.command
        def plain():
            return asyncio.run(fetch(None, "own loop"))
        """
    )
    assert {c["name"]: c["stream"] for c in host.hello["commands"]}["count"] is True
    assert host.call("fetch", "x") == ["x", "AsyncContext"]
    id = host.open("count", 3)
    assert [host.wait_for("item", id)["body"] for _ in range(3)] == [0, 1, 2]
    assert host.answer(id)["kind"] == "end"
    assert host.call("plain") == ["own loop", "NoneType"]
    assert host.bye() == 0


def test_concurrency_is_real(serve):
    source = """
        import asyncio, threading
        barrier = threading.Barrier(3)
        @worker.command
        def meet(): return barrier.wait(20) >= 0
        events = []
        @worker.command
        async def meet_async():
            events.append(asyncio.Event())
            if len(events) == 3:
                for event in events: event.set()
            await asyncio.wait_for(events[-1].wait(), 20)
            return True
        """
    host = serve(source, "concurrency=3")
    for name in ("meet", "meet_async"):
        ids = [host.open(name) for _ in range(3)]
        assert [host.answer(id)["body"] for id in ids] == [True] * 3
    ids = [host.open("meet") for _ in range(2)] + [host.open("meet_async")]
    assert host.fail("meet")["type"] == "Saturated"


def test_more_calls_than_agreed_are_refused(serve):
    host = serve(
        """
        @worker.command
        def wait(ctx): return list(ctx.input)
        """
    )
    first = host.open("wait", flags=0)
    refused = host.answer(host.open("wait"))
    assert refused["flags"] == 4
    assert refused["body"]["type"] == "Saturated"
    host.send("end", id=first)
    assert host.answer(first)["body"] == []


@pytest.mark.parametrize("is_async", [False, True])
def test_queued_calls_run_in_order(serve, is_async):
    host = serve(
        f"""
        done = []
        @worker.command
        {"async " if is_async else ""}def note(n):
            done.append(n)
            return list(done)
        """,
        "queue=7",
    )
    assert host.hello["concurrency"] == 8
    ids, data = [], b""
    for n in range(8):
        ids.append(host.next_id)
        data += host.encode("call", n, id=host.next_id, flags=1, name="note")
        host.next_id += 2
    host.send_bytes(data)
    assert [host.answer(id)["body"] for id in ids] == [list(range(n + 1)) for n in range(8)]


@pytest.mark.parametrize("calls", [["quick", "slow"], ["some", "slow"]])
def test_a_slow_handler_holds_back_no_answer(serve, calls):
    """The slow one ends only after its test has seen the quick one's answer."""
    host = serve(
        """
        @worker.command
        def quick(): return 1
        @worker.command
        def some(ctx):
            for n in range(10): yield n
        @worker.command
        def slow(ctx): return list(ctx.input)
        @worker.command
        def stalls(ctx):
            for n in range(10): yield n
            import time
            while not ctx.cancelled: time.sleep(0.001)
        """,
        "queue=3",
    )
    data = host.encode("call", id=1, flags=1, name=calls[0]) + host.encode("call", id=3, flags=0, name=calls[1])
    host.send_bytes(data)
    host.answer(1)
    host.send("end", id=3)
    assert host.answer(3)["body"] == []
    host.next_id = 5
    id = host.open("stalls")
    assert [host.wait_for("item", id)["body"] for _ in range(10)] == list(range(10))
    host.cancel(id)
    assert host.answer(id)["body"]["type"] == "Cancelled"


def test_each_call_has_its_own_context_variables(each_executor):
    host = each_executor(
        """
        import contextvars
        var = contextvars.ContextVar("var", default="fresh")
        at_import = contextvars.ContextVar("at_import", default="unseen")
        at_import.set("seen")
        @worker.command
        def swap(value):
            old = var.get()
            var.set(value)
            yield [old, var.get(), at_import.get()]
            yield var.get()
        """
    )
    for value in "ab":
        id = host.open("swap", value)
        assert host.wait_for("item", id)["body"] == ["fresh", value, "seen"]
        assert host.wait_for("item", id)["body"] == value
        assert host.answer(id)["kind"] == "end"


CONTEXTS = """
import asyncio, contextvars, decimal
try:
    import numpy
except ImportError:
    numpy = None
tenant = contextvars.ContextVar("tenant", default="nobody")
at_import = contextvars.ContextVar("at_import", default="unseen")
at_import.set("seen")
decimal.getcontext().prec = 50
if numpy and int(numpy.__version__.split(".")[0]) >= 2:  # before, it kept that for each thread
    numpy.seterr(all="raise")

def seen():
    errors = numpy.geterr()["divide"] if numpy and int(numpy.__version__.split(".")[0]) >= 2 else "raise"
    found = [tenant.get(), at_import.get(), len(str(decimal.Decimal(1) / 3)) - 2, errors]
    tenant.set("another call's")
    at_import.set("another call's")
    return found

@worker.command
def plain(): return seen()

@worker.command
def items():
    yield seen()

@worker.service
class Bank:
    {0}def setup(self):
        {1}
        tenant.set("acme")
    {0}def close(self):
        print("close sees", tenant.get())
    @command
    def method(self): return seen()
"""

ASYNC = """
@worker.command
async def task(): return seen()

@worker.command
async def async_items():
    yield seen()

@worker.command
async def inner():
    found = await asyncio.gather(*(asyncio.create_task(own()) for _ in range(2)))
    await asyncio.sleep(0)
    return found[1]

async def own(): return seen()
"""


@pytest.mark.parametrize("setup", ["plain", "async"])
def test_each_handler_sees_the_context_variables_of_the_program_and_of_set_up(each_executor, setup):
    words = ("async ", "await asyncio.sleep(0)") if setup == "async" else ("", "pass")
    host = each_executor(CONTEXTS.format(*words) + (ASYNC if setup == "async" else ""))
    names = ["plain", "items", "method"] + (["task", "async_items", "inner"] if setup == "async" else [])
    for name in 3 * names:
        id = host.open(name)
        found = host.wait_for("item", id)["body"] if "items" in name else None
        frame = host.answer(id)
        assert frame["kind"] == "end", frame
        assert (found or frame["body"]) == ["acme", "seen", 50, "raise"], name
    assert host.bye() == 0
    assert host.printed == ["close sees acme"]


def test_a_task_that_starts_after_a_plain_handler_sees_the_same(serve):
    host = serve(CONTEXTS.format("", "pass") + ASYNC, "concurrency=1, queue=20")
    ids = [host.open(name) for _ in range(5) for name in ("plain", "task", "inner")]
    assert [host.answer(id)["body"] for id in ids] == 15 * [["acme", "seen", 50, "raise"]]


def test_handlers_run_on_the_main_thread_one_at_a_time(serve):
    host = serve(
        """
        import threading
        def here(): return threading.current_thread() is threading.main_thread()
        @worker.command
        def plain(): return here()
        @worker.command
        def stream():
            try:
                yield here()
            finally:
                print("closed on main:", here())
        """
    )
    assert host.call("plain") is True
    id = host.open("stream")
    assert host.wait_for("item", id)["body"] is True
    host.answer(id)
    host.bye()
    assert "closed on main: True" in host.printed


def test_async_and_plain_handlers_share_the_concurrency(serve):
    host = serve(
        """
        import asyncio, threading, time
        running, most, lock = 0, 0, threading.Lock()
        def add(n):
            global running, most
            with lock:
                running += n
                most = max(most, running)
        @worker.command
        async def waits():
            add(1)
            await asyncio.sleep(0.05)
            add(-1)
        @worker.command
        def sleeps():
            add(1)
            time.sleep(0.05)
            add(-1)
        @worker.command
        async def told(): return most
        """,
        "concurrency=2, queue=8",
    )
    ids = [
        host.open(name)
        for name in ["sleeps", "sleeps", "waits", "waits", "sleeps", "waits", "sleeps", "sleeps", "waits", "sleeps"]
    ]
    assert [host.answer(id)["kind"] for id in ids] == ["end"] * 10
    assert host.call("told") == 2
    assert host.bye() == 0


@pytest.mark.parametrize("options", ["", "concurrency=4"])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_what_a_handler_sets_in_decimal_is_its_calls_alone(serve, options, kind):
    """Also where the program has set its context, which is one object that all copies of a context share."""
    host = serve(
        f"""
        import decimal
        decimal.getcontext().prec = 20
        @worker.command
        {kind} divided(digits):
            if digits:
                decimal.getcontext().prec = digits
            return str(decimal.Decimal(1) / 3)
        """,
        options,
    )
    assert host.call("divided", 0) == "0." + 20 * "3"
    assert host.call("divided", 5) == "0.33333"
    assert host.call("divided", 0) == "0." + 20 * "3"


@pytest.mark.parametrize("mode", ["", "concurrency=2"])
def test_msgpack(serve, mode):
    pytest.importorskip("msgpack")
    host = serve(
        """
        @worker.command
        def echo(x): return x
        @worker.command
        def count(n):
            for i in range(n): yield i
        """,
        mode,
        protocol="msgpack",
    )
    assert host.report == {}
    assert host.call("echo", b"\x00\xff") == b"\x00\xff"
    id = host.open("count", 100)
    assert [host.wait_for("item", id)["body"] for _ in range(100)] == list(range(100))
    assert host.answer(id)["kind"] == "end"
    assert host.bye() == 0


# --- sessions and the rest of the context


def test_sessions(each_executor):
    host = each_executor(
        """
        @worker.command
        def count(ctx):
            state = ctx.session.state
            state["n"] = state.get("n", 0) + 1
            return [ctx.session.id, state["n"]]
        @worker.command
        def none(ctx): return ctx.session is None
        """
    )
    assert host.call("count", session="a") == ["a", 1]
    assert host.call("count", session="a") == ["a", 2]
    assert host.call("count", session="b") == ["b", 1]
    assert host.call("snakepit.forget", session="a") is True
    assert host.call("snakepit.forget", session="a") is False
    assert host.call("count", session="a") == ["a", 1]
    assert host.call("none") is True


def test_context(serve):
    host = serve(
        """
        @worker.command
        def look(ctx):
            return [dict(ctx.metadata), ctx.remaining(), ctx.cancelled, ctx.worker_index, ctx.command, list(ctx.input)]
        """,
        env={"SNAKEPIT_WORKER_INDEX": "3"},
    )
    assert host.call("look", meta={"user": "x"}) == [{"user": "x"}, None, False, 3, "look", []]
    assert 0 < host.call("look", ttl=5000)[1] <= 5


def test_describe(serve):
    host = serve(
        '''
        class Broken:
            def __repr__(self): raise LookupError

        @worker.command
        def train(ctx, epochs: int, rate: float = 0.5, *rest, **options) -> "list[str]":
            """Trains."""
            yield 1

        @worker.command
        def broken(x: "1 / 0", y=Broken()) -> "1 / 0": ...
        '''
    )
    described, broken = host.call("snakepit.describe")[:2]
    assert broken["schema"] == {
        "arguments": {
            "type": "object",
            "properties": {"x": {}, "y": {}},
            "required": ["x"],
            "additionalProperties": False,
        },
        "result": {},
    }
    assert described == {
        "name": "train",
        "doc": "Trains.",
        "stream": True,
        "params": [
            {"name": "epochs", "type": "int", "required": True},
            {"name": "rate", "type": "float", "default": 0.5, "required": False},
            {"name": "*rest", "type": "", "required": False},
            {"name": "**options", "type": "", "required": False},
        ],
        "returns": "list[str]",
        "schema": {
            "arguments": {
                "type": "object",
                "properties": {"epochs": {"type": "integer"}, "rate": {"type": "number", "default": 0.5}},
                "required": ["epochs"],
                "additionalProperties": True,
            },
            "items": {},
            "result": {},
        },
    }


def test_services_are_made_once(serve):
    host = serve(
        """
        @worker.service(prefix="model")
        class Model:
            def __init__(self): print("made")
            async def setup(self): self.weights = 3
            @command
            def predict(self, x): return self.weights * x
            @command(name="all")
            def stream(self, ctx, n):
                for i in range(n): yield i * self.weights
            def close(self): print("closed")
        """
    )
    assert [command["name"] for command in host.hello["commands"]][-2:] == ["model.predict", "model.all"]
    assert [host.call("model.predict", 2), host.call("model.predict", {"x": 4})] == [6, 12]
    assert host.call("model.all", {"n": 2}) is None
    assert host.bye() == 0
    assert host.printed.count("made") == 1
    assert host.printed.count("closed") == 1


def test_async_tear_down_when_the_connection_ends_during_a_plain_handler(serve):
    host = serve(
        """
        import asyncio, time
        @worker.service
        class Model:
            @command
            def nap(self):
                print("napping", flush=True)
                time.sleep(60)
            async def close(self):
                await asyncio.sleep(0)
                print("closed")
        """
    )
    host.open("nap")
    host.wait_line("napping")
    assert host.bye() == 0
    assert host.printed == ["napping", "closed"]
