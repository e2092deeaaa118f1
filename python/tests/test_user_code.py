"""Code of the program's that fails where the bridge runs it: the call has its answer, and the worker goes on."""

import os
import signal
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
def a_module_that_raises_its_class():
    def __str__(self): raise Odd("again")
    Odd = type("Odd", (ValueError,), {"__module__": type("Module", (), {"__str__": __str__})()})
    return Odd("the reason")
@command
def a_class_that_lies(): return type("Odd", (ValueError,), {"__class__": Raises(SystemExit)})("the reason")
@command
def data_that_raises(): return type("Odd", (ValueError,), {"snakepit_data": Raises(SystemExit)})("the reason")
@command
def data_by_a_method_that_raises():
    def snakepit_data(self): raise Cancelled("from its data")
    return type("Odd", (ValueError,), {"snakepit_data": snakepit_data})("the reason")
@command
def data_that_contains_itself():
    data = {}
    data["data"] = data
    return failed(snakepit_data=data)
@command
def data_that_changes():
    class Changing(dict):
        asked = 0
        def snakepit_data(self): return self
        def items(self):
            Changing.asked += 1
            if Changing.asked > 1: raise KeyError("again")
            return super().items()
        __iter__ = keys = items
    return failed(snakepit_data=Changing(a=1))
@command
def a_cause_that_never_ends():
    def cause(self): return type(self)("again")
    return type("Odd", (ValueError,), {"__cause__": property(cause)})("the reason")
@command
def a_context_that_never_ends():
    def context(self): return type(self)("again")
    return type("Odd", (ValueError,), {"__context__": property(context)})("the reason")
@command
def attributes_that_all_raise():
    def __getattribute__(self, name): raise SystemExit(name)
    return type("Odd", (ValueError,), {"__getattribute__": __getattribute__})("the reason")
@command
def names_that_any_attribute_has():
    return type("Odd", (ValueError,), {"__getattr__": lambda self, name: 1 / 0})("the reason")
@command
def a_class_with_an_odd_base():
    class Meta(type):
        __mro__ = property(lambda cls: 1 / 0)
        def mro(cls): return type.mro(cls)
    return Meta("Odd", (Meta("Base", (ValueError,), {"__module__": 5}),), {})("the reason")
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
def a_remote_error_of_itself():
    error = {"type": "T", "message": "the reason"}
    error["errors"] = [error, *({**error, "errors": [error] * 16} for _ in range(16))]
    error["cause"] = {"type": "U", "message": "", "cause": error, "errors": [error] * 16}
    return RemoteError(error)
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
def code_with_names_that_raise():
    class Name(str):
        def __str__(self): raise KeyError("name")
    names = {}
    exec("def run():\\n    raise ValueError('the reason')\\n", names)
    code = names["run"].__code__.replace(co_name=Name("run"), co_filename=Name("odd.py"))
    exec(code)

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
        elif name.startswith(("data_that_raises", "data_by", "data_that_contains")):
            assert "data" not in error, name
            assert error["notes"][-1].startswith("its snakepit_data can't be sent: "), name
            assert error.get("traceback", error["notes"][-1] + "\n").endswith(error["notes"][-1] + "\n")
        elif name in ("attributes_that_all_raise", "names_that_any_attribute_has"):
            assert "notes" not in error, name
        elif name == "a_class_with_an_odd_base":
            assert error["bases"] == ["5.Base", "ValueError", "Exception"]
        elif name == "an_odd_metaclass":
            assert (error["module"], error["type"]) == ("5", "Odd")
        elif name == "a_module_that_raises_its_class":
            assert error["type"] == "Odd"
        assert len(error.get("notes", ())) <= 17
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


DATA = """
class Sold(Exception):
    def __init__(self, data):
        super().__init__("sold out")
        self.snakepit_data = data
class Method(Sold):
    def __init__(self, data):
        Exception.__init__(self, "sold out")
        self.own = data
    def snakepit_data(self): return self.own
KINDS = [Sold, Method]

@worker.command
def fail(kind, data): raise KINDS[kind](data)
@worker.command
def large(kind, size): raise KINDS[kind]({"text": "x" * size})
@worker.command
def bad(kind): raise KINDS[kind]({"items": [1, object()]})
@worker.command
def linked(kind, size=3):
    try: raise KINDS[kind]({"text": "x" * size})
    except Sold as exc: raise ValueError("no") from exc
@worker.command
def item(kind, data):
    yield ItemError(KINDS[kind](data))
@worker.command
def deep(levels):
    data = 1
    for _ in range(levels): data = [data]
    try: raise Sold("the inner one")
    except Sold as exc: raise Sold(data) from exc
import dataclasses
@dataclasses.dataclass
class Order:
    count: int
    def __post_init__(self):
        if self.count > 1000: raise ValueError("x" * self.count)
        raise Sold({"left": self.count})
@worker.command
def order(order: Order): pass
"""


def test_data_of_exceptions(each_transport):
    host = each_transport(DATA)
    for kind in (0, 1):
        for data in ({"left": 3, "price": 4.5}, [1, None], "text", 0, False, {}):
            error = host.fail("fail", {"kind": kind, "data": data})
            assert (error["type"], error["message"]) == (("Sold", "Method")[kind], "sold out")
            assert (error["data"], type(error["data"])) == (data, type(data))
            assert "notes" not in error
            id = host.open("item", {"kind": kind, "data": data})
            frame = host.wait_for("item", id)
            assert (frame["flags"], frame["body"]["data"]) == (2, data)
            assert host.answer(id)["kind"] == "end"
        assert "data" not in host.fail("fail", {"kind": kind, "data": None})
        error = host.fail("bad", kind)
        assert "data" not in error
        assert error["notes"][0].startswith("its snakepit_data can't be sent: value.items[1]: a value of type object ")
        assert error["traceback"].endswith(f"sold out\n{error['notes'][0]}\n")
        assert host.fail("linked", {"kind": kind})["cause"]["data"] == {"text": "xxx"}


def test_data_that_is_nested_too_deeply_inside_of_its_error(each_transport):
    host = each_transport(DATA)
    for levels, reason in ((480, None), (499, ", with the error around it"), (501, ", or a cycle")):
        error = host.fail("deep", {"levels": levels})
        assert error["cause"]["data"] == "the inner one"
        if reason is None:
            assert "notes" not in error
            assert error["data"]
        else:
            assert "data" not in error
            assert error["notes"][0].endswith("nested deeper than 500 levels" + reason)


def test_the_data_of_an_exception_that_refused_an_argument(each_transport):
    host = each_transport(DATA, hello={"max_frame": 4096})
    error = host.fail("order", {"order": {"count": 3}})
    assert (error["type"], error["cause"]["data"]) == ("BadArguments", {"left": 3})
    assert error["cause"]["traceback"]
    error = host.fail("order", {"order": {"count": 1300}})  # its message and its traceback do not both fit
    assert "traceback" not in error["cause"]
    assert error["cause"]["frames"]


def test_errors_are_cut_to_the_limit_of_frames(each_transport):
    host = each_transport(DATA, hello={"max_frame": 4096})
    error = host.fail("large", {"kind": 0, "size": 100})
    assert error["data"] == {"text": "x" * 100}
    assert error["traceback"]
    size = 2800
    while "traceback" in error:  # until it is too much
        size += 50
        error = host.fail("large", {"kind": 0, "size": size})
    assert len(error["data"]["text"]) == size
    assert error["frames"]
    error = host.fail("large", {"kind": 0, "size": 4000})
    assert "data" not in error
    assert error["traceback"].endswith(f"{error['notes'][0]}\n")
    assert error["notes"][0].endswith(", and the limit is 3840")
    error = host.fail("linked", {"kind": 1, "size": 4000})["cause"]
    assert "data" not in error
    assert error["notes"][0].startswith("its snakepit_data can't be sent: the error with it has ")
    assert host.fail("fail", {"kind": 0, "data": 5})["data"] == 5


def test_a_start_error_has_no_data(script, launch):
    host = launch(script(DATA + "raise Sold({'photo': b'x'})"))
    error = host.recv()["body"]
    assert (error["type"], error["module"], error["message"]) == ("Sold", "__main__", "sold out")
    assert not {"data", "notes"} & set(error)
    assert error["traceback"].endswith("\nSold: sold out\n")
    assert host.wait() == 1


def test_a_start_error_is_cut_to_the_limit_of_frames(script, launch):
    host = launch(script("raise ValueError('x' * 10_000)"), env={"SNAKEPIT_MAX_FRAME": "4096"})
    frame = host.recv()
    assert frame["kind"] == "error"
    assert frame["body"]["type"] == "ValueError"
    assert len(str(frame["body"])) < 4096
    assert host.wait() == 1


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
    assert frame["body"]["type"] == "Odd"
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
    assert any(line.startswith("Odd: <") for line in host.printed)
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


def test_code_that_interrupts_the_bridge_does_not_wait_for_the_host(each_executor):
    """A finalizer of a garbage cycle may run in any thread of the bridge, and inside of a write."""
    host = each_executor(
        """
        import gc
        refused = []
        class Proxy:
            def __init__(self, ctx):
                self.me, self.ctx = self, ctx
            def __del__(self):
                try: self.ctx.call("release")
                except RuntimeError as exc: refused.append(str(exc))
                except (Disconnected, RemoteError): pass
        @worker.command
        def busy(ctx):
            gc.set_threshold(3, 2, 2)
            for n in range(300):
                Proxy(ctx)
                yield n
            gc.set_threshold(700, 10, 10)
        @worker.command
        def ok(): return list({text[:30] for text in refused})
        """
    )
    id = host.open("busy")
    while True:
        frame = host.recv()
        if frame["kind"] == "call":
            host.send("end", id=frame["id"])
        elif frame["kind"] == "item":
            host.send("credit", id=id, items=1, bytes=100)
        elif frame["kind"] == "end" and frame["id"] == id:
            break
    assert host.call("ok") in ([], ["the host can't be called here:"])
    assert host.bye() == 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer signals")
def test_a_signal_handler_does_not_wait_inside_of_a_wait(each_transport):
    host = each_transport(
        """
        import signal
        @worker.command
        def ask(ctx):
            signal.signal(signal.SIGALRM, lambda *_: ctx.call("inner"))
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            return ctx.call("outer")
        @worker.command
        def ok(): return "ok"
        """
    )
    id = host.open("ask")
    calls = {}
    while True:
        frame = host.recv()
        if frame["kind"] == "call":
            calls[frame["name"]] = frame["id"]
            if len(calls) == 2:  # the main thread does not read the connection, so the signal handler could call
                host.send("end", id=calls["inner"])
                host.send("end", id=calls["outer"])
        elif frame["kind"] in ("end", "error") and frame["id"] == id:
            break
    if frame["kind"] == "error":
        assert frame["body"]["type"] == "RuntimeError"
        assert frame["body"]["message"].startswith("the host can't be called here")
    else:
        assert len(calls) == 2
    assert host.call("ok") == "ok"


@pytest.mark.parametrize("limit", [0, 1])
def test_a_handler_lowers_the_limit_of_open_files(everywhere, limit):
    pytest.importorskip("resource")
    host = everywhere(
        """
        import resource
        @worker.command
        def lower(limit):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        @worker.command
        def ask(ctx): return ctx.call("host")
        """
    )
    host.call("lower", {"limit": limit})
    for _ in range(2):
        id = host.open("ask")
        host.send("end", 5, id=host.wait_for("call")["id"])
        assert host.answer(id)["body"] == 5
    # Python itself may be unable to exit cleanly now, because it loads a library for that.


@pytest.mark.parametrize(
    "before",
    [
        "def odd(*_): raise ValueError('odd')\nthreading.settrace(odd)",
        "def odd(*_): raise ValueError('odd')\nthreading.setprofile(odd)",
        "def odd(self): raise ValueError('odd')\nthreading.Thread.run = odd",
        "threading.Thread.run = lambda self: None",
    ],
    ids=["settrace", "setprofile", "run raises", "run does nothing"],
)
def test_threads_that_the_program_ends_before_they_begin(each_executor, before):
    host = each_executor("import threading\n" + before + "\n@worker.command\ndef ok(): return 'ok'\n")
    ids = [host.open("ok") for _ in range(2 if "pool" in host.executor else 1)]
    assert [host.answer(id)["body"] for id in ids] == ["ok"] * len(ids)
    assert host.bye() == 0


LOOPS = """
import asyncio
loops = []
@worker.command
async def find():
    await asyncio.sleep(0)
    loops[:] = [asyncio.get_running_loop()]
    return "found"
@worker.command
def close(): loops[0].close()
@worker.command
async def close_running():
    try: loops[0].close()
    except RuntimeError as exc: return str(exc)
@worker.command
def idiom():
    loop = asyncio.get_event_loop()
    try: return loop.run_until_complete(asyncio.sleep(0.05, "slept"))
    finally: loop.close()
@worker.command
def run(): return asyncio.run(asyncio.sleep(0.05, "slept"))
"""


def test_plain_handlers_use_and_close_loops(each_transport):
    host = each_transport(LOOPS, "queue=3")
    assert host.call("find") == "found"
    host.call("close")
    assert host.call("find") == "found"
    assert host.call("close_running") == "Cannot close a running event loop"
    for name in ("idiom", "run", "idiom", "run"):
        assert host.call(name) == "slept"
    ids = [host.open(name) for name in ("idiom", "idiom", "find", "run")]  # the others wait while the first one runs
    assert [host.answer(id)["body"] for id in ids] == ["slept", "slept", "found", "slept"]
    assert host.call("find") == "found"
    assert host.bye() == 0
    assert host.printed == []


def test_tasks_go_on_between_queued_plain_calls(serve):
    host = serve(
        """
        import asyncio
        turns = 0
        async def count():
            global turns
            while True:
                turns += 1
                await asyncio.sleep(0)
        @worker.command
        async def begin():
            begin.task = asyncio.create_task(count())
        @worker.command
        def seen(): return turns
        """,
        "queue=7",
    )
    host.call("begin")
    ids = [host.open("seen") for _ in range(8)]
    seen = [host.answer(id)["body"] for id in ids]
    assert sorted(set(seen)) == seen


def test_a_loop_policy_that_raises(serve):
    host = serve(
        """
        import asyncio, warnings
        warnings.simplefilter("ignore")
        class Policy(asyncio.DefaultEventLoopPolicy):
            def set_event_loop(self, loop): raise KeyError("no loop")
        @worker.command
        async def find(): return "found"
        @worker.command
        def install(): asyncio.set_event_loop_policy(Policy())
        @worker.command
        def plain(): return "plain"
        """
    )
    host.call("install")
    assert host.call("plain") == "plain"
    assert host.call("find") == "found"
    assert host.bye() == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork a process")
@pytest.mark.parametrize(
    ("before", "then", "code"),
    [
        ("sys.excepthook = hook", "raise ValueError('in the child')", 1),
        ("sys.stdout = None", "return", 0),
        ("del sys.stdout, sys.stderr, sys.excepthook", "raise ValueError('in the child')", 1),
        ("sys.stdout = sys.stderr = Stream()", "sys.exit(3)", 3),
    ],
)
def test_a_forked_child_ends_whatever_it_has_replaced(each_executor, before, then, code):
    host = each_executor(
        f"""
        import os, sys, warnings
        warnings.simplefilter("ignore")
        def hook(*_): raise KeyError("hook")
        class Stream:
            def write(self, text): raise KeyError("write")
            def flush(self): raise KeyError("flush")
        @worker.command
        def fork():
            pid = os.fork()
            if not pid:
                {before}
                {then}
            return os.waitpid(pid, 0)[1] >> 8
        """
    )
    assert host.call("fork") == code
    assert host.bye() == 0
