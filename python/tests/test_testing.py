"""Testing worker files without a host."""

import sys
import threading

import pytest

import snakepit_bridge
from snakepit_bridge import BadValue, Cancelled, ItemError, RemoteError, Worker, command, testing

worker = Worker()
events = []


@worker.command
def compute(operation, a, b):
    return {"add": a + b, "multiply": a * b}[operation]


@worker.command
def count(ctx, n):
    try:
        yield from range(n)
    finally:
        events.append("closed")
    return {"n": n}


@worker.command(name="disguised")
def looks_plain(ctx, n):
    return count(ctx, n)


@worker.command
def nothing():
    pass


@worker.command
def look(ctx):
    return [ctx.session and ctx.session.id, dict(ctx.metadata), ctx.remaining() <= 5]


@worker.command
def total(ctx):
    return sum(1000 if isinstance(x, ItemError) else x for x in ctx.input)


@worker.command
def ask(ctx, name, value):
    return ctx.call(name, value)


@worker.command
def relay(ctx, n):
    stream = ctx.stream("numbers", n)
    yield from stream
    return stream.result


@worker.command
def items():
    yield 1
    yield ItemError("second")
    yield 3


@worker.command
def spin(ctx):
    try:
        while True:
            pass
    except Cancelled:
        events.append("cancelled")
        raise


@worker.command
async def later(ctx, n):
    return [n, await ctx.call("double", n)]


@worker.service
class Service:
    def setup(self):
        events.append("setup")

    @command
    def twice(self, x):
        return 2 * x

    def close(self):
        events.append("close")


def numbers(n):
    yield from range(n)
    return "over"


def broken(_):
    yield 1
    raise OSError("broken")


@pytest.fixture
def host():
    events.clear()
    with testing.load(worker, functions={"double": lambda x: 2 * x, "numbers": numbers, "broken": broken}) as host:
        yield host


def test_calls(host):
    assert host.call("compute", operation="add", a=1, b=2.0) == 3.0
    assert host.call("compute", {"operation": "multiply", "a": 2, "b": 2}) == 4
    assert host.call("twice", 4) == 8
    assert host.call("later", 4) == [4, 8]


def test_streams(host):
    with host.stream("count", n=1000) as stream:
        assert list(stream) == list(range(1000))
        assert stream.result == {"n": 1000}
    one, failed, three = host.stream("items")
    assert (one, str(failed), three) == (1, "ValueError: second", 3)


def test_a_stream_is_not_called_and_what_does_not_stream_is_one_item(host):
    with pytest.raises(TypeError, match=r"count sends a stream: use stream\(\)"):
        host.call("count", 3)
    with pytest.raises(TypeError, match="disguised sends a stream"):
        host.call("disguised", 10**9)
    assert events == ["setup", "closed"]
    assert list(host.stream("disguised", 2)) == [0, 1]
    for name in ("twice", "later"):
        stream = host.stream(name, 4)
        assert list(stream) == [stream.result]
        assert stream.result in (8, [4, 8])
    assert list(host.stream("nothing")) == []
    with pytest.raises(RemoteError, match="divide"), host.stream("compute", operation="divide", a=1, b=0) as stream:
        next(stream)


def test_leaving_a_stream_closes_it(host):
    with host.stream("count", n=10**9) as stream:
        assert next(stream) == 0
    assert events == ["setup", "closed"]


def test_options(host):
    assert host.options(timeout=5, metadata={"k": "v"}).session("s").call("look") == ["s", {"k": "v"}, True]
    assert host.options(input=range(2000)).call("total") == 1999000
    assert host.options(input=[1, ItemError("x")]).call("total") == 1001
    with pytest.raises(RemoteError, match="its input raised ZeroDivisionError"):
        host.options(input=(1 // x for x in [1, 0])).call("total")


def test_functions(host):
    assert host.call("ask", name="double", value=5) == 10
    stream = host.stream("relay", 3000)
    assert list(stream) == list(range(3000))
    assert stream.result == "over"
    with pytest.raises(RemoteError, match="broken"):
        host.call("ask", name="broken", value=1)
    with pytest.raises(RemoteError, match=r"no function 'nothing'; give load\(functions=...\)"):
        host.call("ask", name="nothing", value=1)


def test_errors(host):
    with pytest.raises(RemoteError) as caught:
        host.call("compute", operation="divide", a=1, b=0)
    assert caught.value.type == "KeyError"
    assert "in compute" in caught.value.traceback()
    with pytest.raises(RemoteError, match="compute"):
        host.call("comptue")
    with pytest.raises(BadValue):
        host.call("compute", object())


def test_a_call_that_takes_too_long(host):
    with pytest.raises(TimeoutError):
        host.options(timeout=0.2).call("spin")
    assert events == ["setup", "cancelled"]
    assert host.call("twice", 1) == 2


def test_set_up_and_tear_down():
    events.clear()
    with testing.load(worker):
        assert events == ["setup"]
    assert events == ["setup", "close"]


def test_failing_set_up():
    broken = Worker()

    @broken.service
    class Broken:
        @command
        def f(self):
            pass

        def setup(self):
            raise OSError("no model")

    with pytest.raises(OSError, match="no model"), testing.load(broken):
        pass


def test_a_file(tmp_path):
    (tmp_path / "helper.py").write_text("value = 5\n")
    path = tmp_path / "my_worker.py"
    path.write_text(
        "import helper, pickle\nfrom snakepit_bridge import Worker\nworker = Worker(concurrency=2)\n"
        "class Thing: pass\n"
        "@worker.command\ndef f(): return [helper.value, pickle.loads(pickle.dumps(Thing())).__module__]\n"
        "if __name__ == '__main__': worker.run()\n"
    )
    before, threads = list(sys.path), set(threading.enumerate())
    with testing.load(path) as host:
        assert host.call("f") == [5, "my_worker"]
    sys.modules.pop("helper")
    assert sys.path == before
    assert "my_worker" not in sys.modules
    assert not [thread.name for thread in set(threading.enumerate()) - threads if "housekeeper" not in thread.name]


def test_a_missing_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=f"no file 'worker.py' .the working directory is {tmp_path}"
    ), testing.load("worker.py"):
        pass


def test_names_are_checked():
    with pytest.raises(ValueError, match="already"):
        worker.command(name="compute")(print)
    with pytest.raises(ValueError, match="reserved"):
        worker.command(name="snakepit.mine")(print)
    with pytest.raises(ValueError, match="no method"):
        worker.service(type("Empty", (), {}))
    with pytest.raises(ValueError, match="concurrency is 0"):
        Worker(concurrency=0)
    with pytest.raises(ValueError, match="queue is -1"):
        Worker(queue=-1)


def test_a_method_without_an_instance_is_no_command():
    methods = Worker()

    class Model:
        def predict(self, x):
            return 2 * x

    with pytest.raises(
        TypeError,
        match=r"Model.predict is a method and has no instance: put @command of snakepit_bridge on it, and @worker",
    ):
        methods.command(Model.predict)
    with pytest.raises(TypeError, match="service"):

        class Other:
            @methods.command(name="p")
            def predict(self, x):
                return x

    methods.command(Model().predict)
    with testing.load(methods) as host:
        assert host.call("predict", 2) == 4


def test_wrapped_functions_are_seen_through():
    import functools

    def passes(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    decorated = Worker()

    class Callable:
        def __call__(self, ctx, x):
            return [type(ctx).__name__, x]

    @decorated.command
    @passes
    def stream(ctx, n):
        yield type(ctx).__name__
        yield n

    def plain(a, ctx, b):
        return [a, b, ctx.command]

    decorated.command(name="callable")(Callable())
    decorated.command(name="partial")(functools.partial(plain, b=2))
    decorated.command(name="builtin")(len)
    with testing.load(decorated) as host:
        assert list(host.stream("stream", 2)) == ["Context", 2]
        assert host.call("callable", 1) == ["Context", 1]
        assert host.call("partial", 1) == [1, 2, "partial"]
        assert host.call("builtin", [1, 2, 3]) == 3


def test_the_public_names():
    assert sorted(snakepit_bridge.__all__) == snakepit_bridge.__all__
    assert all(hasattr(snakepit_bridge, name) for name in snakepit_bridge.__all__)
    assert issubclass(Cancelled, BaseException)
    assert not issubclass(Cancelled, Exception)


def test_types_and_data_are_those_of_a_host(tmp_path):
    path = tmp_path / "shop.py"
    path.write_text(
        "from snakepit_bridge import RemoteError, Worker\n"
        "worker = Worker()\n"
        "class Sold(Exception):\n"
        "    def snakepit_data(self): return {'left': 0}\n"
        "class Out(Sold): pass\n"
        "@worker.command\n"
        "def buy(): raise Out('sold out')\n"
        "@worker.command\n"
        "def ask(ctx):\n"
        "    try: ctx.call('stock')\n"
        "    except RemoteError as error: return [error.type, error.data]\n"
    )

    def stock():
        exc = KeyError("tea")
        exc.snakepit_data = {"item": "tea"}
        raise exc

    with testing.load(path, functions={"stock": stock}) as worker:
        with pytest.raises(RemoteError, match=r"^shop\.Out: sold out$") as caught:
            worker.call("buy")
        error = caught.value
        assert (error.type, error.error["module"], error.data) == ("Out", "shop", {"left": 0})
        assert error.error["bases"] == ["shop.Sold", "Exception"]
        assert error.traceback().endswith("\nshop.Out: sold out\n")
        assert worker.call("ask") == ["KeyError", {"item": "tea"}]


class Invalid(ValueError):
    pass


@worker.command
def refuse(kind):
    raise {"own": Invalid, "key": KeyError, "decode": __import__("json").JSONDecodeError}[kind](
        *(["bad", "doc", 0] if kind == "decode" else ["bad"])
    )


def test_an_error_is_recognised_by_its_class():
    with testing.load(worker) as caller:
        for kind, names in {
            "own": ("Invalid", "ValueError", "Exception", f"{__name__}.Invalid"),
            "key": ("KeyError", "LookupError"),
            "decode": ("JSONDecodeError", "json.decoder.JSONDecodeError", "ValueError"),
        }.items():
            with pytest.raises(RemoteError) as caught:
                caller.call("refuse", kind)
            error = caught.value
            assert all(error.is_a(name) for name in names)
            assert not any(error.is_a(name) for name in ("TypeError", "Error", "decoder", "", "alid"))
            assert "Exception" in error.bases
            assert error.module == {"own": __name__, "key": "", "decode": "json.decoder"}[kind]
            assert "in refuse" in str(error.__cause__)  # pytest shows the line of the handler
