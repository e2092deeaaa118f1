"""Arguments of a whole command: which are missing, unknown or wrong, and what the caller is told."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from test_arguments import same

import snakepit_bridge
import snakepit_bridge.testing
from snakepit_bridge import RemoteError, Worker
from snakepit_bridge._command import Command
from snakepit_bridge._schema import schemas


def train(epochs: int, rate: float = 0.1, *, shuffle: bool = True) -> Any:
    return [epochs, rate, shuffle]


def plain(a, b=2, *, c=3):
    return [a, b, c]


def only_by_name(*, a):
    return a


def nothing():
    return None


def takes_context(ctx, a: int = 0):
    return a


def by_place(a: int, /):
    return a


def rest(*values: int, **named: float):
    return [values, named]


def default_none(a: int = None):  # noqa: RUF013  many programs say so
    return a


def raises_type_error(a):
    return len(a)


def calls_with_too_few(a):
    return plain()


@functools.wraps(plain)
def wrapper(*args, **kwargs):
    return plain(*args, **kwargs)


def decorated(function):
    """As many decorators: it takes anything."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)

    return call


@decorated
@decorated
def twice_decorated(a: int, b: int = 2):
    return [a, b]


@decorated
def decorated_items(a: int):
    yield a


@decorated
def decorated_ctx(ctx, a: int):
    return [type(ctx).__name__, a]


@functools.wraps(train)
def injecting(*args, **kwargs):
    return train(*args, epochs=7, **kwargs)


@functools.wraps(train)
def popping(*args, **kwargs):
    return [kwargs.pop("verbose"), *train(*args, **kwargs)]


@functools.wraps(train)
def broken_decorator(*args, **kwargs):
    return train(*args, db=5, **kwargs)


@functools.wraps(train, assigned=["__name__"])
def parsing(count: str, ctx):
    return train(int(count))


@functools.wraps(train, assigned=["__name__"])
def with_context(ctx, *args, **kwargs):
    return [type(ctx).__name__, *train(*args, **kwargs)]


cached = functools.lru_cache(maxsize=None)(train)


class Callable_:
    def __call__(self, a: int):
        return a


class Service:
    Number = int

    def method(self, a: int):
        return a

    @classmethod
    def on_class(cls, a: Number):
        return a

    def in_text(self, a: int, b: Number):
        return [a, b]

    @snakepit_bridge.command
    def checked(self, a: int): ...


WORKER = Worker()
for _function in (
    train,
    plain,
    only_by_name,
    nothing,
    takes_context,
    by_place,
    rest,
    default_none,
    raises_type_error,
    calls_with_too_few,
):
    WORKER.command(_function)
WORKER.command("wrapper")(wrapper)
for _function in (
    twice_decorated,
    decorated_items,
    decorated_ctx,
    with_context,
    injecting,
    popping,
    parsing,
    broken_decorator,
    cached,
):
    WORKER.command(next(name for name, one in globals().items() if one is _function))(_function)
WORKER.command("on_class")(Service.on_class)
WORKER.command("partial_of_a_method")(functools.partial(Service().in_text, 1))
WORKER.command("partial_of_one")(functools.partial(plain, 1, c=5))
WORKER.command("callable")(Callable_())
WORKER.command(name="method")(Service().method)
WORKER.command(name="partial")(functools.partial(plain, c=5))
WORKER.command("unchecked", validate=False)(train)
WORKER.command(len)


@pytest.fixture(scope="module", params=["json", "msgpack"])
def caller(request):
    with snakepit_bridge.testing.load(WORKER, codec=request.param) as caller:
        yield caller


@pytest.mark.parametrize(
    "name,argument,result",
    [
        ("train", {"epochs": 3.0, "rate": 1}, [3, 1.0, True]),
        ("train", 3.0, [3, 0.1, True]),
        ("plain", {"a": "x"}, ["x", 2, 3]),
        ("takes_context", {"a": 3.0}, 3),
        ("takes_context", 3.0, 3),
        ("by_place", 3.0, 3),
        ("rest", {"x": 1, "values": 2}, [[], {"x": 1.0, "values": 2.0}]),
        ("rest", 3.0, [[3], {}]),
        ("default_none", {"a": None}, None),
        ("wrapper", {"a": 1}, [1, 2, 3]),
        ("twice_decorated", {"a": 1.0, "b": 3.0}, [1, 3]),
        ("twice_decorated", 1.0, [1, 2]),
        ("decorated_ctx", {"a": 3.0}, ["Context", 3]),
        ("with_context", {"epochs": 3.0}, ["Context", 3, 0.1, True]),
        ("injecting", {"rate": 1}, [7, 1.0, True]),
        ("popping", {"epochs": 3.0, "verbose": 1}, [1, 3, 0.1, True]),
        ("parsing", {"count": "5"}, [5, 0.1, True]),
        ("cached", {"epochs": 3.0}, [3, 0.1, True]),
        ("on_class", {"a": 3.0}, 3),
        ("partial_of_a_method", {"b": 3.0}, [1, 3]),
        ("partial_of_a_method", 3.0, [1, 3]),
        ("partial_of_one", {"b": 1}, [1, 1, 5]),
        ("partial_of_one", None, [1, 2, 5]),
        ("callable", {"a": 3.0}, 3),
        ("method", {"a": 3.0}, 3),
        ("partial", {"a": 1}, [1, 2, 5]),
        ("unchecked", {"epochs": "x"}, ["x", 0.1, True]),
    ],
)
def test_a_command_gets(caller, name, argument, result):
    assert same(caller.call(name, argument), result)


@pytest.mark.parametrize(
    "name,argument,message",
    [
        ("train", {"epochs": "x"}, "epochs: expected an integer, got 'x'"),
        ("train", "x", "epochs: expected an integer, got 'x'"),
        (
            "train",
            {"epochs": 1, "epoch": 5},
            "train() got an unexpected argument 'epoch'; there are 'rate' and 'shuffle'",
        ),
        ("train", {"epoch": 5}, "train() got an unexpected argument 'epoch'; did you mean 'epochs'?"),
        ("train", None, "train() missing argument 'epochs'"),
        ("plain", {"b": 1, "x": 2}, "plain() got an unexpected argument 'x'; there are 'a' and 'c'"),
        ("plain", {}, "plain() missing argument 'a'"),
        ("only_by_name", 5, "only_by_name() takes its arguments by name: send a map with 'a', not 5"),
        ("nothing", 5, "nothing() takes no arguments, and got 5"),
        ("nothing", {"a": 5}, "nothing() got an unexpected argument 'a'; there are none"),
        ("takes_context", {"ctx": 1}, "takes_context() takes its context as ctx, so that can't be an argument's name"),
        ("takes_context", {"a": "x"}, "a: expected an integer, got 'x'"),
        ("by_place", {"a": 1}, "by_place() takes 'a' by its place: send the value alone, not in a map"),
        ("rest", {"x": "y"}, "x: expected a number, got 'y'"),
        ("rest", "y", "values: expected an integer, got 'y'"),
        (
            "train",
            {"epochs": 1, "rate": 1, "shuffle": True, "zz": 5},
            "train() got an unexpected argument 'zz'; there are 'epochs', 'rate' and 'shuffle'",
        ),
        ("wrapper", None, "wrapper() missing argument 'a'"),
        ("wrapper", {"a": 1, "x": 2}, "wrapper() got an unexpected argument 'x'; there are 'b' and 'c'"),
        ("twice_decorated", {"a": 1, "x": 2}, "twice_decorated() got an unexpected argument 'x'; there is 'b'"),
        ("twice_decorated", {"a": "y"}, "a: expected an integer, got 'y'"),
        ("decorated_ctx", None, "decorated_ctx() missing argument 'a'"),
        ("parsing", {"epochs": 5}, "parsing() got an unexpected argument 'epochs'; there is 'count'"),
        ("parsing", {"count": 5}, "count: expected text, got 5"),
        ("on_class", {"a": "y"}, "a: expected an integer, got 'y'"),
        ("on_class", None, "on_class() missing argument 'a'"),
        ("partial_of_a_method", {"b": "y"}, "b: expected an integer, got 'y'"),
        ("partial_of_a_method", None, "partial_of_a_method() missing argument 'b'"),
        ("partial_of_one", {"a": 1}, "partial_of_one() got an unexpected argument 'a'; there is 'b'"),
        ("callable", {"a": "y"}, "a: expected an integer, got 'y'"),
        ("callable", {"b": 1}, "callable() got an unexpected argument 'b'; there is 'a'"),
        ("method", {"a": "y"}, "a: expected an integer, got 'y'"),
        ("method", None, "method() missing argument 'a'"),
        ("partial", {"x": 1}, "partial() got an unexpected argument 'x'; there are 'a' and 'b'"),
        ("unchecked", {"epoch": 1}, "unchecked() got an unexpected argument 'epoch'; did you mean 'epochs'?"),
    ],
)
def test_a_command_refuses(caller, name, argument, message):
    with pytest.raises(RemoteError) as caught:
        caller.call(name, argument)
    assert (caught.value.type, caught.value.message) == ("BadArguments", message)


@pytest.mark.parametrize(
    "name,argument",
    [
        ("raises_type_error", 5),
        ("calls_with_too_few", 5),
        ("len", 5),
        ("cached", {"epoch": 5}),  # in C
        ("broken_decorator", {"epochs": 1}),
    ],
)
def test_a_type_error_of_a_function_that_ran_stays_one(caller, name, argument):
    with pytest.raises(RemoteError) as caught:
        caller.call(name, argument)
    assert caught.value.type == "TypeError"


DECORATED = """
    import functools
    from snakepit_bridge import command
    def decorated(function):
        @functools.wraps(function)
        def call(*args, **kwargs): return function(*args, **kwargs)
        @functools.wraps(function)
        async def call_async(*args, **kwargs): return await function(*args, **kwargs)
        return call_async if function.__name__ == "waits" else call
    @worker.command
    @decorated
    def value(a: int): return a
    @worker.command
    @decorated
    def items(a: int): yield a
    @worker.command
    @decorated
    async def waits(a: int): return a
    class Service:
        @command
        @decorated
        def method(self, a: int): return a
    worker.service(Service)
"""


@pytest.mark.parametrize("name", ["value", "items", "waits", "method"])
def test_a_decorated_command_refuses(serve, name):
    host = serve(DECORATED)
    host.send("call", {"b": 5}, id=1, flags=1, name=name)
    frame = host.answer(1)
    assert (frame["kind"], frame["body"]["type"]) == ("error", "BadArguments")
    assert frame["body"]["message"] == f"{name}() got an unexpected argument 'b'; there is 'a'"
    assert not frame.get("flags")  # the decorator has run


def test_the_names_of_a_decorated_command_are_described():
    found = schemas([Command("twice", twice_decorated), Command("parsing", parsing)])
    assert [one["arguments"]["properties"] for one in found] == [
        {"a": {"type": "integer"}, "b": {"type": "integer", "default": 2}},
        {"count": {"type": "string"}},
    ]


HANDLERS = """
    from dataclasses import dataclass
    @dataclass
    class Slow:
        how: str
        def __post_init__(self):
            seen.append(current.get("none"))
            if self.how == "wait":
                import threading
                print("validating", flush=True)
                threading.Event().wait()  # until it is cancelled
            if self.how == "exit":
                raise SystemExit(7)
            raise KeyError(self.how)
    from contextvars import ContextVar
    current = ContextVar("current")
    current.set("the program's")
    seen = []
    @worker.command
    def check(slow: Slow): return "ran"
    @worker.command
    def what(): return seen
    @worker.command
    async def async_check(slow: Slow): return "ran"
    @worker.command
    def items(slow: Slow): yield "ran"
    @worker.command
    def fits(n: int): return n
    @worker.command
    async def async_plain(n): return n
"""


@pytest.mark.parametrize("options", ["", "concurrency=2"])
@pytest.mark.parametrize("name", ["check", "async_check", "items"])
def test_the_program_refuses(serve, options, name):
    host = serve(HANDLERS, options)
    host.send("call", {"slow": {"how": "x"}}, id=1, flags=1, name=name)
    frame = host.answer(1)
    assert (frame["kind"], frame["flags"], frame["body"]["type"]) == ("error", 4, "BadArguments")
    assert frame["body"]["message"] == "slow: KeyError: 'x'"
    assert frame["body"]["cause"]["frames"][-1]["source"] == "raise KeyError(self.how)"
    host.send("call", {"m": 5}, id=3, flags=1, name="async_plain")
    frame = host.answer(3)
    assert (frame["flags"], frame["body"]["message"]) == (
        4,
        "async_plain() got an unexpected argument 'm'; there is 'n'",
    )
    host.next_id = 5
    assert host.call("what") == ["the program's"]
    assert host.call("fits", {"n": 2.0}) == 2
    assert host.bye() == 0


def test_a_validation_is_interrupted(serve):
    host = serve(HANDLERS.replace("async def", "def"))
    host.send("call", {"slow": {"how": "wait"}}, id=1, flags=1, name="check")
    host.wait_line("validating")
    host.send("cancel", id=1, name="enough")
    frame = host.answer(1)
    assert (frame["body"]["type"], frame["body"]["message"]) == ("Cancelled", "enough")
    host.next_id = 3
    assert host.call("fits", {"n": 2.0}) == 2


def test_the_program_may_exit_in_a_validation(serve):
    host = serve(HANDLERS)
    assert host.fail("check", {"slow": {"how": "exit"}})["type"] == "SystemExit"
    assert host.call("fits", {"n": 2.0}) == 2


def test_commands_without_annotations_import_nothing(serve):
    host = serve(
        """
        import sys
        @worker.command
        def loaded(ctx: Context, x=None) -> list:
            names = ("_arguments", "_compiler", "_converters", "_annotations", "_misfit", "_rule", "_converters_text")
            return [name for name in names if f"snakepit_bridge.{name}" in sys.modules]
        @worker.command
        def one(x: int): return x
        """
    )
    assert host.call("loaded", {"x": 1}) == []
    assert host.call("one", 1) == 1
    assert host.call("loaded") == ["_arguments", "_compiler", "_converters", "_annotations", "_misfit", "_rule"]


def test_many_threads_make_the_first_call(serve):
    host = serve("@worker.command\ndef one(x: 'list[int]', y: int = None): return [x, y]\n", "concurrency=8")
    for id in range(1, 17, 2):
        host.send("call", {"x": [1.0], "y": id}, id=id, flags=1, name="one")
    for id in range(1, 17, 2):
        assert host.answer(id)["body"] == [[1], id]
