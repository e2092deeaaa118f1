"""Code of the program's that fails where the bridge runs it: the call has its answer, and the worker goes on."""

import textwrap

import pytest

# Each command raises an exception that is hard to describe.
ODD = """
import itertools, pathlib

class Nasty(str):
    def __len__(self): raise KeyError("len")
    def encode(self, *_): raise KeyError("encode")
    def startswith(self, *_): raise KeyError("startswith")
    def __eq__(self, other): raise KeyError("eq")
    __hash__ = str.__hash__

class Raises:
    def __init__(self, what): self.what = what
    def __get__(self, instance, owner):
        if instance is None: return self
        raise self.what("from a property")

class Endless(list):
    def __iter__(self): return itertools.repeat("again")

def raiser(make):
    def command():
        raise make()
    return command

def command(make):
    worker.command(name=make.__name__)(raiser(make))

def failed(**attributes):
    exc = ValueError("the reason")
    exc.__dict__.update(attributes)
    return exc

@command
def exceptions_is_a_number(): return failed(exceptions=3)
@command
def exceptions_never_ends(): return failed(exceptions=itertools.count())
@command
def exceptions_is_a_list_that_never_ends(): return failed(exceptions=Endless())
@command
def notes_is_a_number(): return failed(__notes__=17)
@command
def notes_never_ends(): return failed(__notes__=itertools.repeat("a"))
@command
def notes_is_a_list_that_never_ends(): return failed(__notes__=Endless())
@command
def a_note_that_raises():
    return failed(__notes__=["good", type("Bad", (), {"__str__": lambda self: 1 / 0})(), Nasty("nasty")])
@command
def properties_that_raise():
    names = ("exceptions", "__notes__", "__cause__", "__context__", "__suppress_context__", "__traceback__", "args")
    return type("Odd", (ValueError,), {name: Raises(SystemExit) for name in names})("the reason")
@command
def syntax_error_with_a_path(): return SyntaxError("the reason", (pathlib.Path("page.tmpl"), 3, 1, "{% if"))
@command
def syntax_error_with_bytes(): return SyntaxError("the reason", ("page.tmpl", "three", 1, b"{% if"))
@command
def syntax_error_that_raises():
    names = ("filename", "lineno", "text")
    return type("Odd", (SyntaxError,), {name: Raises(KeyError) for name in names})("the reason")
@command
def an_odd_metaclass():
    class Meta(type):
        __module__ = property(lambda cls: 5)
        __name__ = property(lambda cls: 1 / 0)
        def __getattribute__(cls, name): return 5 if name == "__qualname__" else 1 / 0
    return Meta("Odd", (ValueError,), {"__module__": 5})("the reason")
@command
def a_class_that_lies(): return type("Odd", (ValueError,), {"__class__": Raises(SystemExit)})("the reason")
@command
def nasty_text(): return ValueError(Nasty("the reason"))
@command
def a_nasty_str(): return type("Odd", (ValueError,), {"__str__": lambda self: Nasty("the reason")})()
@command
def a_cause_that_raises():
    exc = failed()
    body = {"__str__": lambda self: 1 / 0, "__notes__": Raises(KeyboardInterrupt)}
    exc.__cause__ = type("Odd", (ValueError,), body)()
    return exc
@command
def a_remote_error_of_anything():
    frames = [3, {"file": object(), "line": "x"}]
    exc = RemoteError({"type": object(), "message": Nasty("the reason"), "frames": frames, "cause": {"type": 5}})
    exc.__dict__["__notes__"] = None
    return exc
@command
def a_remote_error_of_nothing():
    exc = RemoteError({"type": "T", "message": "the reason"})
    exc.error = 5
    return exc

def str_raises(kind):
    @worker.command(name="str raises " + kind.__name__)
    def command():
        def __str__(self): raise kind("from str()")
        raise type("Odd", (ValueError,), {"__str__": __str__})("the reason")

for kind in (ValueError, KeyboardInterrupt, SystemExit, Cancelled, RecursionError, MemoryError, GeneratorExit):
    str_raises(kind)

class Loader:
    def __init__(self, kind): self.kind = kind
    def get_source(self, name): raise self.kind(name)

def source_raises(kind):
    @worker.command(name="get_source raises " + kind.__name__)
    def command():
        names = {"__name__": "virtual", "__loader__": Loader(kind)}
        exec(compile("def run():\\n    raise ValueError('the reason')\\n", "virtual.py", "exec"), names)
        names["run"]()

for kind in (KeyError, SystemExit, RecursionError, SyntaxError):
    source_raises(kind)

@worker.command
def a_file_that_is_not_utf_8():
    with open("page.tmpl", "wb") as file:
        file.write(b"# caf\\xe9\\n")
    names = {}
    exec(compile("def run():\\n    raise ValueError('the reason')\\n", "page.tmpl", "exec"), names)
    names["run"]()

@worker.command
def ok():
    return "ok"
"""


def names_in(host):
    return [command["name"] for command in host.hello["commands"] if not command["name"].startswith("snakepit.")]


def test_each_exception_is_described(everywhere, tmp_path):
    host = everywhere(ODD, cwd=str(tmp_path))
    for name in names_in(host):
        if name in ("ok", "asynchronous"):
            continue
        error = host.fail(name)
        if name.startswith("str raises"):
            assert error["message"] == f"<no text: str() raised {error['message'].split()[-1]}", name
        else:
            assert error["message"].split(" (")[0] == "the reason" or error["type"].endswith("RemoteError"), (
                name,
                error,
            )
        assert [frame["function"] for frame in error.get("frames", [])], name
        if name == "a_note_that_raises":
            assert error["notes"] == ["good", "<no text: str() raised ZeroDivisionError>", "nasty"]
        elif name == "notes_is_a_number":
            assert error["notes"] == ["17"]
        elif name == "an_odd_metaclass":
            assert error["type"] == "5.Odd"
        assert len(error.get("notes", ())) <= 16
        assert host.call("ok") == "ok"
    assert host.bye() == 0
    assert host.printed == []


def test_each_exception_of_an_async_handler_is_described(each_transport, tmp_path):
    source = ODD.replace("def command():", "async def command():")
    source = source.replace("@worker.command\ndef", "@worker.command\nasync def")
    host = each_transport(textwrap.dedent(source), cwd=str(tmp_path))
    ids = {host.open(name): name for name in names_in(host) if name != "ok"}
    for id, name in ids.items():
        frame = host.answer(id)
        assert frame["kind"] == "error", name
        assert frame["body"]["type"], name
    assert host.call("ok") == "ok"
    assert host.bye() == 0
    assert host.printed == []


# Values whose own code fails while they are encoded.
VALUES = """
import collections.abc, sys

def methods(**named):
    return type("Odd", (), named)()

def raising(kind):
    def raises(*_, **__): raise kind("while it was encoded")
    return raises

def values(kind):
    raises = raising(kind)
    yield "model_dump", methods(model_dump=raises)
    yield "dict", type("Odd", (), {"__fields__": (), "dict": raises})()
    yield "list", type("Odd", (list,), {"__iter__": raises})()
    yield "keys", type("Odd", (dict,), {"keys": raises, "__iter__": raises})(a=1)
    yield "repr of a key", {type("Odd", (), {"__repr__": raises})(): 1}
    yield "class", type("Odd", (), {"__class__": property(raises)})()
    yield "item", ItemError(type("Odd", (ValueError,), {"__str__": raises})())

KINDS = {kind.__name__: kind for kind in (ValueError, RecursionError, MemoryError)}
KINDS.update({kind.__name__: kind for kind in (SystemExit, KeyboardInterrupt, Cancelled)})

@worker.command
def result(kind, name):
    return dict(values(KINDS[kind]))[name]

@worker.command
def item(kind, name):
    yield 1
    yield dict(values(KINDS[kind]))[name]
    yield 3

@worker.command
def names():
    return [[kind, name] for kind in KINDS for name, _ in values(ValueError)]

@worker.command
def close_raises():
    try:
        yield object()
    finally:
        raise SystemExit(3)
"""


def test_values_whose_code_fails(everywhere):
    host = everywhere(VALUES)
    for kind, name in host.call("names"):
        for command in ("result", "item"):
            frame = host.answer(host.open(command, {"kind": kind, "name": name}))
            if name == "item" and command == "item":
                assert frame["kind"] == "end"
            elif frame["kind"] == "error":
                assert frame["body"]["type"].split(".")[-1] in ("BadResult", kind), (kind, name, frame)
            else:  # what is taken as it is, whatever its own code says
                assert name in ("list", "keys"), (kind, name, frame)
    assert host.fail("close_raises")["type"] == "SystemExit"
    assert host.call("names")
    assert host.bye() == 0
    assert host.printed == []


def test_an_item_s_error_may_be_odd(each_transport):
    host = each_transport(
        ODD + "\n@worker.command\ndef items():\n    yield ItemError(failed(exceptions=3, __notes__=17))\n    yield 2\n"
    )
    id = host.open("items")
    first = host.wait_for("item", id)
    assert (first["flags"], first["body"]["message"], first["body"]["notes"]) == (2, "the reason", ["17"])
    assert host.wait_for("item", id)["body"] == 2
    assert host.answer(id)["kind"] == "end"


@pytest.mark.parametrize("where", ["import", "setup", "init"])
def test_a_start_that_fails_oddly(script, launch, where):
    raises = "raise type('Odd', (ValueError,), {'__str__': lambda self: 1 / 0, 'exceptions': 3})()"
    if where == "import":
        source = raises
    else:
        name = "__init__" if where == "init" else "setup"
        source = (
            f"@worker.service\nclass S:\n    def {name}(self):\n        {raises}\n    @command\n    def f(self): pass\n"
        )
    host = launch(script(source))
    frame = host.recv()
    assert (frame["kind"], frame["id"]) == ("error", 0)
    assert frame["body"]["type"] == "__main__.Odd"
    assert host.wait() == 1


def test_close_that_fails_oddly(each_executor):
    host = each_executor(
        """
        import sys
        class Odd(ValueError):
            exceptions = 3
            def __str__(self): raise SystemExit(4)
        @worker.service
        class First:
            @command
            def f(self): return 1
            def close(self): print("first closed")
        @worker.service
        class Second:
            @command
            def g(self): return 1
            def close(self): raise Odd()
        @worker.service
        class Third:
            @command
            def h(self): return 1
            def close(self): sys.exit(5)
        """
    )
    assert host.call("f") == 1
    assert host.bye() == 0
    assert "first closed" in host.printed
    assert "__main__.Odd: <no text: str() raised SystemExit>" in host.printed
    assert "SystemExit: 5" in host.printed


def test_names_of_functions_are_checked(each_transport):
    host = each_transport(
        """
        class Nasty(str):
            def encode(self, *_): raise KeyError
        @worker.command
        def call(ctx, n):
            return ctx.call(["f", 5, None, "\\ud800", b"f", Nasty("f")][n], 1)
        """
    )
    for n in (1, 2, 3, 4):
        assert host.fail("call", n)["type"] == "TypeError"
    for n in (0, 5):
        id = host.open("call", n)
        frame = host.wait_for("call")
        assert frame["name"] == "f"
        host.send("end", 7, id=frame["id"])
        assert host.answer(id)["body"] == 7


def test_a_task_that_is_cancelled_before_it_begins_is_answered(each_transport):
    host = each_transport(
        """
        import asyncio
        @worker.command
        async def cancel_all():
            for _ in range(50):
                for task in asyncio.all_tasks():
                    if task is not asyncio.current_task(): task.cancel()
                await asyncio.sleep(0)
            return "done"
        @worker.command
        async def wait():
            await asyncio.sleep(60)
        """,
        "concurrency=4",
    )
    batch = [host.open("cancel_all"), *(host.open("wait") for _ in range(3))]
    assert host.answer(batch[0])["body"] == "done"
    for id in batch[1:]:
        host.cancel(id)
        assert host.answer(id)["kind"] == "error"
    assert host.bye() == 0


def test_a_task_factory_that_fails(serve):
    host = serve(
        """
        import asyncio
        @worker.command
        async def break_it():
            def factory(loop, coroutine, **_): raise ValueError("no tasks today")
            asyncio.get_running_loop().set_task_factory(factory)
        @worker.command
        async def f(): pass
        """
    )
    host.answer(host.open("break_it"))
    error = host.fail("f")
    assert (error["type"], error["message"]) == ("ValueError", "no tasks today")
