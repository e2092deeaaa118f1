"""Calls, streams, credit, callbacks and sessions, with real processes, in each way of running handlers."""

import pytest
from host import Gone

from snakepit_bridge._calls import Call, Inbox
from snakepit_bridge._runner import Runner
from snakepit_bridge._worker import Command
from snakepit_bridge.transport import END, ITEM, Launch, Transport


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


# --- credit


def test_items_wait_for_credit(each_executor):
    host = each_executor(
        """
        @worker.command
        def count(n):
            for i in range(n): yield i
        @worker.command
        def big():
            yield "x" * 5000
            yield "y"
        """,
        hello={"window": {"items": 3, "bytes": 1000}},
    )
    id = host.open("count", 5)
    assert [host.wait_for("item", id)["body"] for _ in range(3)] == [0, 1, 2]
    host.send("ping", id=8)
    assert host.recv()["kind"] == "pong"  # and not an item
    host.send("credit", id=id, items=1, bytes=1)
    assert host.recv()["body"] == 3
    host.send("credit", id=id, items=9, bytes=9)
    assert host.recv()["body"] == 4
    assert host.answer(id)["kind"] == "end"
    id = host.open("big")
    assert len(host.recv()["body"]) == 5000
    host.send("credit", id=id, items=9, bytes=4000)  # still below zero
    host.send("ping", id=10)
    assert host.recv()["kind"] == "pong"
    host.send("credit", id=id, items=0, bytes=1100)
    assert host.recv()["body"] == "y"


def test_async_items_wait_for_credit(serve):
    host = serve(
        """
        @worker.command
        async def count(n):
            for i in range(n): yield i
        """,
        hello={"window": {"items": 2, "bytes": 1000}},
    )
    id = host.open("count", 4)
    assert [host.wait_for("item", id)["body"] for _ in range(2)] == [0, 1]
    host.send("ping", id=8)
    assert host.recv()["kind"] == "pong"
    host.send("credit", id=id, items=9, bytes=9)
    assert [host.recv()["body"] for _ in range(2)] == [2, 3]
    assert host.answer(id)["kind"] == "end"


def test_input_is_credited_as_it_is_consumed(each_executor):
    host = each_executor(
        """
        @worker.command
        def add(ctx):
            total = 0
            for x in ctx.input:
                if isinstance(x, ItemError): total += 1000000
                else: total += x
            return total
        """
    )
    id = host.open("add", flags=0)
    host.send_bytes(b"".join(host.encode("item", 1, id=id) for _ in range(1024)))
    granted = 0
    while granted < 1024:
        granted += host.wait_for("credit", id)["items"]
    host.send("item", {"type": "E", "message": "m"}, id=id, flags=2)
    host.send("end", id=id)
    assert host.answer(id)["body"] == 1001024


def test_async_input(serve):
    host = serve(
        """
        @worker.command
        async def add(ctx): return sum([x async for x in ctx.input])
        """
    )
    id = host.open("add", flags=0)
    for n in range(5):
        host.send("item", n, id=id)
    host.send("end", id=id)
    assert host.answer(id)["body"] == 10


def test_input_can_be_declined(serve):
    host = serve(
        """
        @worker.command
        def first(ctx):
            x = next(ctx.input)
            ctx.input.close()
            assert list(ctx.input) == []
            return x
        """
    )
    id = host.open("first", flags=0)
    host.send("item", 5, id=id)
    assert host.wait_for("cancel", id)["name"]
    host.send("item", 6, id=id)  # crossed the cancel
    host.send("end", id=id)
    assert host.answer(id)["body"] == 5
    assert host.call("snakepit.describe")


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


# --- callbacks


def answer_callbacks(host, id):
    """Answers what a call asks the host, until the call's answer comes."""
    while True:
        frame = host.recv()
        if frame["kind"] == "call":
            assert frame["parent"] == id
            assert frame["id"] % 2 == 0
            if frame["name"] == "double":
                host.send("end", frame["body"] * 2, id=frame["id"])
            elif frame["name"] == "fails":
                host.send("error", {"type": "*fs.PathError", "message": "no such file"}, id=frame["id"])
            else:
                for n in range(frame["body"]["n"]):
                    host.send("item", n, id=frame["id"])
                host.send("end", "over", id=frame["id"])
        elif frame["kind"] in ("end", "error"):
            return frame
        else:
            host.others.append(frame)


CALLBACKS = """
    @worker.command
    def twice(ctx, n): return ctx.call("double", ctx.call("double", n))
    @worker.command
    def fails(ctx):
        try:
            ctx.call("fails")
        except RemoteError as error:
            return [error.type, error.message]
    @worker.command
    def passes(ctx): ctx.call("fails")
    @worker.command
    def streams(ctx, n):
        stream = ctx.stream("numbers", n=n)
        return [sum(stream), stream.result]
    @worker.command
    def drops(ctx): return ctx.call("numbers", n=1500)
    @worker.command
    async def twice_async(ctx, n): return await ctx.call("double", await ctx.call("double", n))
    @worker.command
    async def streams_async(ctx, n):
        stream = ctx.stream("numbers", n=n)
        return [sum([x async for x in stream]), stream.result]
"""


@pytest.mark.parametrize("kind", [ITEM, END])
def test_an_input_may_be_closed_while_more_of_it_is_taken(kind):
    """Items that the host sends just before it hears of the close are dropped, wherever the reading thread is then."""

    class Silent(Transport):
        def __init__(self):
            pass

        def write(self, frames):
            pass

    runner = Runner(Silent(), {}, 1, 0, Launch({}))

    class Racing(Inbox):
        """Is closed by another thread right after the reader has looked whether it is open."""

        @property
        def open(self):
            was = Inbox.open.__get__(self)
            if was and len(self.queue) == 1:
                self.queue.clear()
                runner.host_calls.stop_input(call)
            return was

        @open.setter
        def open(self, value):
            Inbox.open.__set__(self, value)

    call = runner.calls[1] = Call({"id": 1}, Command("x", lambda: None), 1, 1)
    call.inbox = Racing(True)
    runner.handle(
        [
            {"kind": ITEM, "id": 1, "body": b"1"},
            {"kind": kind, "id": 1, "body": b"2"},
            {"kind": ITEM, "id": 1, "body": b"3"},
        ]
    )
    assert not call.inbox.open


def test_callbacks(each_executor):
    host = each_executor(CALLBACKS.split("    @worker.command\n    async")[0])
    _check_callbacks(host, "")


def test_async_callbacks(serve):
    _check_callbacks(serve(CALLBACKS), "_async")


def _check_callbacks(host, suffix):
    def ask(name, body=None):
        id = host.open(name, body, ttl=20000)
        return answer_callbacks(host, id)

    assert ask("twice" + suffix, 5)["body"] == 20
    assert ask("fails")["body"] == ["*fs.PathError", "no such file"]
    error = ask("passes")["body"]
    assert (error["module"], error["type"]) == ("snakepit_bridge", "RemoteError")
    assert error["cause"]["type"] == "*fs.PathError"
    assert ask("streams" + suffix, 1000)["body"] == [499500, "over"]
    assert ask("drops")["body"] == "over"
    assert sum(frame["items"] for frame in host.others if frame["kind"] == "credit") >= 1500


def test_a_callback_serves_its_call(serve):
    host = serve(
        """
        @worker.command
        def ask(ctx):
            stream = ctx.stream("numbers")
            return next(stream)
        @worker.command
        def wait(ctx): return ctx.call("never")
        """
    )
    id = host.open("ask", ttl=20000, session="s")
    call = host.wait_for("call")
    assert (call["parent"], call["session"], call["flags"]) == (id, "s", 1)
    assert 0 < call["ttl"] <= 20000
    host.send("item", 1, id=call["id"])
    assert host.wait_for("cancel")["id"] == call["id"]  # the handler returned without taking all
    assert host.answer(id)["body"] == 1
    host.send("item", 2, id=call["id"])  # crossed the cancel
    host.send("error", {"type": "Cancelled", "message": ""}, id=call["id"])
    id = host.open("wait")
    call = host.wait_for("call")
    host.cancel(id)
    assert host.wait_for("cancel")["id"] == call["id"]
    assert host.answer(id)["body"]["type"] == "Cancelled"


def test_callbacks_from_threads_of_a_handler(each_executor):
    host = each_executor(
        """
        from concurrent.futures import ThreadPoolExecutor
        @worker.command
        def spread(ctx):
            with ThreadPoolExecutor(4) as pool:
                return sum(pool.map(lambda n: ctx.call("double", n), range(8)))
        """
    )
    assert answer_callbacks(host, host.open("spread"))["body"] == 56


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


# --- errors


def test_exceptions_travel(each_executor):
    host = each_executor(
        """
        def inner(): raise KeyError("k")
        class Custom(Exception):
            def __str__(self): raise RuntimeError
        @worker.command
        def chain():
            try:
                inner()
            except KeyError as exc:
                error = ValueError("bad \\ud800")
                error.__notes__ = ["look here"]
                raise error from exc
        @worker.command
        def broken(): raise Custom
        @worker.command
        def deep(n=5000):
            import sys
            sys.setrecursionlimit(400)
            return deep()
        @worker.command
        def exits(): raise SystemExit(3)
        """
    )
    error = host.fail("chain")
    assert (error["type"], error["message"], error["notes"]) == ("ValueError", "bad ?", ["look here"])
    frame = error["frames"][-1]
    assert frame["file"].endswith("worker.py")
    assert (frame["function"], frame["source"]) == ("chain", "raise error from exc")
    assert [frame["function"] for frame in error["cause"]["frames"]] == ["chain", "inner"]
    assert host.fail("broken")["type"] == "Custom"
    assert 60 < len(host.fail("deep")["frames"]) < 80
    assert host.fail("exits")["type"] == "SystemExit"
    assert host.fail("chain", {"x": 1})["type"] == "BadArguments"
    assert host.bye() == 0


def test_unknown_commands(serve):
    host = serve("@worker.command\ndef compute(): pass\n")
    frame = host.answer(host.open("comptue"))
    assert frame["flags"] == 4
    assert frame["body"]["type"] == "UnknownCommand"
    assert "'compute'" in frame["body"]["message"]


def test_what_can_not_be_encoded(each_executor):
    host = each_executor(
        """
        closed = []
        @worker.command
        def result(): return {"a": [1, object()]}
        @worker.command
        def items():
            try:
                yield 1
                yield {"b": object()}
            finally:
                closed.append(True)
        @worker.command
        def huge(): return "x" * (1 << 20)
        @worker.command
        def asks(ctx):
            try: ctx.call("host", "x" * (1 << 20))
            except BadValue as error: return str(error)
        @worker.command
        def was_closed(): return closed
        """
    )
    error = host.fail("result")
    assert error["type"] == "BadResult"
    assert "a[1]" in error["message"] or ".a" in error["message"]
    assert host.fail("items")["type"] == "BadResult"
    assert host.call("was_closed") == [True]
    error = host.fail("huge")
    assert error["type"] == "TooLarge"
    # Two bytes are the codec's quotes, 256 the allowance for everything but the body.
    assert error["message"] == (
        f"a frame with the result has {(1 << 20) + 258} bytes, and the limit is {1 << 20}; "
        "raise Options.MaxFrame, or send it in smaller items"
    )
    assert host.call("asks").startswith("value: a frame with the arguments has ")


@pytest.mark.parametrize("body", [b"{", b'{"a":1,"a":2}', b'{"$bytes":5}', b"[" * 2000 + b"]" * 2000, b'"\xff"'])
def test_a_hostile_body_fails_its_call_alone(each_executor, body):
    host = each_executor("@worker.command\ndef echo(x=None): return x\n")
    host.send("call", raw=body, id=1, flags=1, name="echo")
    frame = host.answer(1)
    assert (frame["kind"], frame["flags"], frame["body"]["type"]) == ("error", 4, "BadArguments")
    host.next_id = 3
    assert host.call("echo", 1) == 1


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("end", {"id": 99}, "99"),
        ("credit", {"id": 2, "items": 1}, "call 2"),
        ("call", {"id": 2, "name": "echo"}, "id 2"),
        ("item", {"id": 0}, "call 0"),
        ("hello", {}, "hello"),
        ("log", {}, "log"),
    ],
)
def test_a_broken_protocol_ends_the_connection(each_executor, kind, fields, message):
    host = each_executor("@worker.command\ndef echo(x=None): return x\n")
    host.send(kind, **fields)
    with pytest.raises(Gone):
        host.recv()
    assert host.wait() == 1
    assert any("protocol error" in line and message in line for line in host.printed), host.printed


def test_items_beyond_credit_and_after_the_end_are_violations(serve):
    source = "@worker.command\ndef wait(ctx):\n    import time\n    while True: time.sleep(1)\n"
    for frames in ([("item", 0)] * 1025, [("end", None), ("item", 0)], [("end", None), ("end", None)]):
        host = serve(source)
        id = host.open("wait", flags=0)
        host.send_bytes(b"".join(host.encode(kind, body, id=id) for kind, body in frames))
        with pytest.raises(Gone):
            host.answer(id)
        assert host.wait() == 1
        host.close()


def test_input_is_credited_by_its_bytes(each_executor):
    host = each_executor("@worker.command\ndef total(ctx): return sum(map(len, ctx.input))\n")
    id = host.open("total", flags=0)
    granted = 0
    for sent in range(1, 33):
        host.send("item", "x" * 65534, id=id)  # 64 KiB with its quotes, so 16 of them are a window
        if sent % 8 == 0:
            credit = host.wait_for("credit", id)
            granted += credit["bytes"]
            assert granted >= (sent - 7) << 16
    host.send("end", id=id)
    assert host.answer(id)["body"] == 32 * 65534


@pytest.mark.parametrize(
    "text,kept", [("x", 1000), ("\x01", 500), ("\U0001f600", 500), ("é", 1000)], ids=["x", "control", "emoji", "accent"]
)
def test_an_error_that_is_too_large_is_cut(each_transport, text, kept):
    host = each_transport(
        f"@worker.command\ndef fail(): raise ValueError({text!a} * 20000)\n", hello={"max_frame": 4096}
    )
    error = host.fail("fail")
    assert error["type"] == "ValueError"
    assert set(error["message"]) == {text}
    assert kept <= len(error["message"]) <= 1000
    assert host.fail("fail") == error


def test_frames_for_ended_calls_are_dropped(serve):
    host = serve("@worker.command\ndef echo(x=None): return x\n")
    id = host.open("echo", 1)
    host.answer(id)
    for kind in ("cancel", "credit", "item", "end"):
        host.send(kind, id=id)
    assert host.call("echo", 2) == 2


def test_frames_for_abandoned_calls_to_the_host_are_dropped(each_executor):
    host = each_executor(
        """
        @worker.command
        def echo(x): return x
        @worker.command
        def asks(ctx): return ctx.call("never")
        """
    )
    id = host.open("asks")
    request = host.wait_for("call")["id"]
    host.cancel(id)
    assert host.answer(id)["body"]["type"] == "Cancelled"
    assert host.wait_for("cancel")["id"] == request
    for kind in ("item", "credit", "cancel", "end", "end", "error"):
        host.send(kind, id=request)
    assert host.call("echo", 2) == 2


def test_ids_of_calls_increase(serve):
    for id in (1, 3, 5):
        host = serve("@worker.command\ndef echo(x): return x\n")
        for used in (1, 5):
            host.send("call", 1, id=used, flags=1, name="echo")
            host.answer(used)
        host.send("call", 1, id=id, flags=1, name="echo")
        with pytest.raises(Gone):
            host.recv()
        assert host.wait() == 1
        assert f"a call with id {id}, which is not the host's next" in host.printed[0]
        host.close()


def test_draining(serve):
    host = serve(
        """
        @worker.command
        def wait(ctx): return list(ctx.input)
        @worker.command
        def calls(ctx): return ctx.call("host")
        @worker.command
        def echo(): return 1
        """,
        "queue=1",
    )
    id = host.open("calls")
    callback = host.wait_for("call")["id"]
    host.send("bye")
    refused = host.answer(host.open("wait"))
    assert refused["flags"] == 4
    assert refused["body"]["type"] == "Draining"
    nested = host.open("echo", parent=callback)
    host.send("end", 5, id=callback)
    assert host.answer(id)["body"] == 5
    assert host.answer(nested)["body"] == 1
    host.hang_up()
    assert host.wait() == 0


def test_pings_are_answered_while_a_handler_runs(each_executor):
    host = each_executor(
        """
        @worker.command
        def spin(ctx):
            while not ctx.cancelled: pass
        """
    )
    id = host.open("spin")
    running = []
    while not running:  # the call may not have begun when the first ping comes
        host.send("ping", id=1)
        running = host.wait_for("pong", 1)["body"]["running"]
    (call,) = running
    assert 0 <= call.pop("ms") < 60_000
    assert call == {"id": id, "name": "spin"}
    host.cancel(id)
    host.answer(id)


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


@pytest.mark.parametrize("place", ["import", "setup"])
def test_records_of_errors_before_a_crash_at_the_start(script, launch, place):
    crash = "import logging, os; logging.error('about to die'); logging.info('less so'); os._exit(9)"
    source = (
        crash
        if place == "import"
        else f"@worker.service\nclass S:\n    def setup(self): {crash}\n    @command\n    def f(self): pass\n"
    )
    host = launch(script(source))
    assert host.wait() == 9
    assert host.printed == ["ERROR:root:about to die"]
