"""Errors of calls, with real processes, in each way of running handlers."""

import pytest


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
