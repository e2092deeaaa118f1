"""Calls of handlers to the host, with real processes, in each way of running handlers."""

import pytest

from snakepit_bridge._calls import Call, Inbox
from snakepit_bridge._runner import Runner
from snakepit_bridge._worker import Command
from snakepit_bridge.transport import END, ITEM, Launch, Transport


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
