"""Snapshots of sessions, with real processes, in each way of running handlers."""

import functools

import pytest

from snakepit_bridge import Worker

KEEP = 8 | 1  # the flags of a call whose session's state the host keeps

COUNTER = """
    @worker.on_snapshot
    def snapshot(session):
        return session.state

    @worker.command
    def count(ctx, fail=""):
        ctx.session.state["n"] = ctx.session.state.get("n", 0) + 1
        if fail:
            raise ValueError(fail)
        return ctx.session.state["n"]

    @worker.command
    def stream(ctx, n):
        for _ in range(n):
            yield count(ctx)
"""


def kept(host, id):
    """Returns the state frame of a call, and its answer. The state must come first, and only once."""
    answer = host.answer(id)
    states = [frame for frame in host.others if frame["kind"] == "state" and frame["id"] == id]
    assert len(states) == 1
    host.others.remove(states[0])
    return states[0], answer


def states(host):
    host.call("snakepit.describe")  # frames that come before this answer have come
    return [frame for frame in host.others if frame["kind"] == "state"]


def test_the_state_comes_before_each_answer(each_executor):
    host = each_executor(
        COUNTER
        + """
    @worker.command
    def wait(ctx):
        ctx.session.state["n"] = "waited"
        ctx.call("host.started")
        for _ in ctx.input: pass
    """
    )
    assert "snapshots" in host.hello["features"]
    assert "snakepit.restore" in [command["name"] for command in host.hello["commands"]]
    for n in (1, 2):
        state, answer = kept(host, host.open("count", session="a", flags=KEEP))
        assert (state["body"], answer["body"]) == ({"n": n}, n)
    state, answer = kept(host, host.open("count", {"fail": "no"}, session="a", flags=KEEP))
    assert (state["body"], answer["kind"]) == ({"n": 3}, "error")
    state, answer = kept(host, host.open("stream", {"n": 2}, session="a", flags=KEEP))
    assert (state["body"], answer["kind"]) == ({"n": 5}, "end")
    id = host.open("wait", session="a", flags=8)
    host.send("end", id=host.wait_for("call")["id"])
    host.cancel(id)
    state, answer = kept(host, id)
    assert (state["body"], answer["body"]["type"]) == ({"n": "waited"}, "Cancelled")


def test_no_state_is_sent_unasked(each_executor):
    host = each_executor(COUNTER)
    host.call("count", session="a")
    host.fail("count", {"other": 1}, session="a", flags=KEEP)  # the handler has not begun
    host.call("snakepit.describe", flags=KEEP)  # there is no session
    assert states(host) == []


def test_a_worker_without_hooks_has_no_snapshots(serve):
    host = serve("@worker.command\ndef f(): pass\n")
    assert "snapshots" not in host.hello["features"]
    assert "snakepit.restore" not in [command["name"] for command in host.hello["commands"]]
    host.call("f", session="a", flags=KEEP)
    assert states(host) == []


def test_a_snapshot_becomes_the_state(each_executor):
    host = each_executor(COUNTER)
    host.call("snakepit.restore", {"n": 7, "ctx": "any key"}, session="a")
    assert host.call("count", session="a") == 8
    host.call("snakepit.restore", {}, session="a")  # it replaces what is there
    assert host.call("count", session="a") == 1
    assert host.call("count", session="b") == 1
    assert host.fail("snakepit.restore", {"n": 7})["type"] == "ValueError"


def test_a_function_restores(each_executor):
    host = each_executor(
        """
    @worker.on_snapshot
    def snapshot(session):
        return session.state.get("parts")

    @worker.on_restore
    def restore(session, value):
        session.state["parts"] = "unfinished"
        session.state["parts"] = value + [session.id]

    @worker.command
    def parts(ctx, add=None):
        if add is not None:
            ctx.session.state["parts"] = add
        return ctx.session.state.get("parts")
    """
    )
    assert kept(host, host.open("parts", {"add": [1]}, session="a", flags=KEEP))[0]["body"] == [1]
    host.call("snakepit.restore", [1, 2], session="b")
    assert host.call("parts", session="b") == [1, 2, "b"]
    assert host.fail("snakepit.restore", None, session="b")["type"] == "TypeError"
    assert host.call("parts", session="b") == [1, 2, "b"]  # it is as before
    assert host.fail("snakepit.restore", None, session="c")["frames"][-1]["function"] == "restore"
    assert host.call("parts", session="c") is None


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("raise ValueError('nothing to show')", "nothing to show"),
        ("return {'culprit': object()}", "BadResult: the snapshot can't be sent: value.culprit"),
        ("return {'x': 'x' * (1 << 21)}", "TooLarge: a frame with the snapshot has"),
        ("return [1, 2]", "write a function with @worker.on_restore"),
        ("raise SystemExit(3)", "SystemExit"),
    ],
)
def test_a_snapshot_that_fails_is_logged(serve, source, says):
    host = serve(
        f"""
    @worker.on_snapshot
    def snapshot(session):
        if session.state.get("fine"):
            return session.state
        {source}

    @worker.command
    def fine(ctx, fine):
        ctx.session.state["fine"] = fine
        return fine
    """
    )
    for is_fine in (True, False, True):
        state, answer = kept(host, host.open("fine", is_fine, session="a", flags=KEEP))
        assert answer["body"] is is_fine
        assert state.get("flags", 0) == (0 if is_fine else 2)
        assert (state.get("body") is not None) is is_fine
        if not is_fine:
            record = host.logs("the snapshot of a session failed; without one it is lost with this worker")
            assert (record["level"], record["fields"]["session"]) == ("error", "a")
            assert says in record["fields"]["exception"]
            assert "snakepit_bridge" not in record["fields"]["exception"]
            assert ("in snapshot" in record["fields"]["exception"]) is ("raise" in source)


def test_snapshots_of_calls_that_end_at_once_are_in_order(serve):
    host = serve(
        """
    @worker.on_snapshot
    def snapshot(session):
        taken = session.state.get("taken", 0) + 1
        session.state["taken"] = taken
        return {"taken": taken}

    @worker.command
    def work(): pass
    """,
        "concurrency=4, queue=60",
    )
    for id in [host.open("work", session="a", flags=KEEP) for _ in range(60)]:
        assert host.answer(id)["kind"] == "end"
    sent = [frame["body"]["taken"] for frame in host.others if frame["kind"] == "state"]
    assert sent == list(range(1, 61))


def test_no_snapshot_is_taken_when_the_host_has_gone(each_executor):
    host = each_executor(
        """
    @worker.on_snapshot
    def snapshot(session):
        print("taken", flush=True)
        return session.state

    @worker.command
    def wait():
        import time
        try:
            print("waits", flush=True)
            while True: time.sleep(0.01)
        except Cancelled:
            print("has waited", flush=True)
    """
    )
    host.open("wait", session="a", flags=KEEP)
    host.wait_line("waits")
    host.hang_up()
    host.wait()
    assert host.printed == ["waits", "has waited"]


def test_a_snapshot_may_have_the_session_itself_copied(each_executor):
    host = each_executor(
        """
    import copy, gc, pickle

    @worker.on_snapshot
    def snapshot(session):
        return copy.deepcopy(session).state if session.id == "a" else pickle.loads(pickle.dumps(session)).state

    @worker.command
    def f(ctx): ctx.session.state["id"] = ctx.session.id

    @worker.command
    def locks(ctx):
        gc.collect()
        return len(ctx._runner.snapshots._turns)
    """
    )
    for name in "ab":
        assert kept(host, host.open("f", session=name, flags=KEEP))[0]["body"] == {"id": name}
    host.call("snakepit.forget", session="a")
    assert host.call("locks") <= 1


async def asynchronous(session): ...


def generator(session):
    yield


class Holder:
    def method(self, session): ...


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (asynchronous, "is async: write it with def"),
        (generator, "is a generator: write it with def"),
        (Holder.method, "Holder.method is a method and has no instance"),
        ("name", "belongs on a function, and got 'name'"),
    ],
)
@pytest.mark.parametrize("hook", ["on_snapshot", "on_restore"])
def test_what_can_be_no_hook(hook, function, says):
    with pytest.raises(TypeError) as raised:
        getattr(Worker(), hook)(function)
    assert says in str(raised.value)
    assert f"@worker.{hook}" in str(raised.value)


@pytest.mark.parametrize(
    ("hook", "function", "says"),
    [
        ("on_snapshot", lambda: 1, "takes (session), and {name}() does not: too many positional arguments"),
        ("on_snapshot", lambda a, b: 1, "and {name}(a, b) does not: missing a required argument: 'b'"),
        ("on_restore", lambda a: 1, "takes (session, value), and {name}(a) does not: too many positional arguments"),
        ("on_restore", lambda a, b, *, c: 1, "and {name}(a, b, *, c) does not: missing a required"),
        ("on_restore", len, "and len(obj, /) does not: too many positional arguments"),
        ("on_restore", functools.partial(len), "does not: too many positional arguments"),
    ],
)
def test_a_hook_takes_the_arguments_that_it_gets(hook, function, says):
    with pytest.raises(TypeError) as raised:
        getattr(Worker(), hook)(function)
    assert str(raised.value).startswith(f"@worker.{hook} belongs on a function that takes (session")
    assert says.format(name=getattr(function, "__qualname__", "")) in str(raised.value)


class Callable:
    def __call__(self, session, value=None): ...

    def method(self, session, value=None): ...


@functools.wraps(lambda database, session, more: 1)
def passes_on_others(*args): ...


class Broken:
    def __call__(self, session, value): ...

    @property
    def __signature__(self):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "function",
    [max, Callable(), Callable().method, passes_on_others, Broken(), functools.partial(lambda a, *b, c: 1, c=1)],
)
@pytest.mark.parametrize("hook", ["on_snapshot", "on_restore"])
def test_a_hook_whose_arguments_are_not_known(hook, function):
    assert getattr(Worker(), hook)(function) is function


def test_a_hook_that_does_not_take_its_arguments_after_all(serve):
    host = serve(
        """
        @worker.on_snapshot
        def snapshot(session): return 1

        worker.on_restore(getattr)

        @worker.command
        def generate(n):
            yield from map(abs, [n])
        """
    )
    error = host.fail("snakepit.restore", 5, session="a")
    assert (error["type"], "attribute name must be string" in error["message"]) == ("TypeError", True)
    assert host.fail("generate", {"n": None})["type"] == "TypeError"


def test_hooks_are_unique_and_come_together():
    worker = Worker()
    assert worker.on_restore(max) is max
    with pytest.raises(ValueError, match="on_restore already"):
        worker.on_restore(max)
    with pytest.raises(ValueError, match="none with @worker"):
        worker._snapshots()
    assert worker.on_snapshot(len) is len
    with pytest.raises(ValueError, match="on_snapshot already"):
        worker.on_snapshot(len)
    assert worker._snapshots() is not None


def test_a_restore_without_a_snapshot_is_an_error_at_start(script, launch):
    host = launch(script("@worker.on_restore\ndef restore(session, value): pass\n"))
    frame = host.recv()
    assert (frame["kind"], frame["body"]["type"]) == ("error", "ValueError")
    assert "write both" in frame["body"]["message"]
