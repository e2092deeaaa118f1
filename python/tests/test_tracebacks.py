"""The text of a traceback is what Python itself prints, on every version."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import textwrap
import traceback

import pytest

from snakepit_bridge import RemoteError
from snakepit_bridge._description import describe
from snakepit_bridge._errors import render
from snakepit_bridge._tracebacks import traceback_text


class NotTrained(Exception):
    """As in a worker's own file."""


NotTrained.__module__ = "__main__"


def deep(n):
    if n == 0:
        raise ValueError("bad operand")
    deep(n - 1)


def ping(n):
    pong(n)


def pong(n):
    ping(n + 1)


def wrap(error, make):
    try:
        make()
    except Exception as exc:
        raise error from exc


def while_handling(error, make, **named):
    try:
        make()
    except Exception:
        if "cause" in named:
            raise error from named["cause"]
        raise error  # noqa: B904


def plain():
    deep(3)


def cause():
    wrap(RuntimeError("no model"), plain)


def context():
    while_handling(KeyError("color"), plain)


def from_none():
    while_handling(KeyError("color"), plain, cause=None)


def chained_thrice():
    while_handling(OSError(2, "no such file"), lambda: wrap(RuntimeError("no model"), context))


def folded():
    deep(50)


def endless():
    old = sys.getrecursionlimit()
    sys.setrecursionlimit(150)
    try:
        ping(0)
    finally:
        sys.setrecursionlimit(old)


def compiled():
    compile("def f(:\n    pass\n", "page.py", "exec")


def imported():
    import snakepit_broken_module  # noqa: F401


def key_error():
    {}["color"]


def empty():
    raise ValueError


def own_class():
    raise NotTrained("train it first")


def class_in_a_function():
    class Inner(Exception):
        pass

    raise Inner("inside")


def surrogates():
    raise ValueError("café 😀 \udc80")


def notes():
    exc = ValueError("bad operand")
    exc.add_note("the first")
    exc.add_note("the second\nof two lines")
    raise exc


def caught(make):
    try:
        make()
    except Exception as exc:
        return exc


def group():
    members = [caught(plain), caught(context), ExceptionGroup("inner", [caught(key_error), ValueError(5)])]  # noqa: F821
    raise ExceptionGroup("outer", members)  # noqa: F821


def group_as_cause():
    wrap(RuntimeError("all failed"), group)


def large_group():
    raise ExceptionGroup("many", [ValueError(n) for n in range(40)])  # noqa: F821


def carets():
    table = {"a": {"b": None}}
    return table["a"]["b"]["c"] + 1


def suggestion():
    return sys.modulez


CASES = [
    plain,
    cause,
    context,
    from_none,
    chained_thrice,
    folded,
    endless,
    compiled,
    imported,
    key_error,
    empty,
    own_class,
    class_in_a_function,
    surrogates,
    carets,
    suggestion,
]
if sys.version_info >= (3, 11):
    CASES += [notes, group, group_as_cause, large_group]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_the_text_is_pythons_own(make, tmp_path, monkeypatch):
    (tmp_path / "snakepit_broken_module.py").write_text("x = 1\ny = (2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(BaseException) as raised:  # noqa: PT011
        make()
    exc = raised.value
    want = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
    want = want.encode("utf-8", "backslashreplace").decode()
    error = describe(exc)
    assert error["traceback"] == want
    assert error["traceback"] == describe(exc)["traceback"]  # a line that is remembered is the same
    assert render(error) == want


def test_a_bare_interpreter_says_the_same(tmp_path):
    """The comparison is not with something that the bridge could have changed."""
    path = tmp_path / "program.py"
    path.write_text(
        textwrap.dedent(
            """
            def load(name):
                return {}[name]

            def main():
                try:
                    load("model")
                except KeyError as exc:
                    raise NotTrained("train it first") from exc

            class NotTrained(Exception): pass

            """
        )
    )
    program = path.read_text()
    path.write_text(program + "main()\n")
    printed = subprocess.run([sys.executable, str(path)], stderr=subprocess.PIPE, check=False).stderr.decode()
    printed = printed.replace("\n__main__.", "\n")  # 3.8 and 3.9 show it, unlike their module traceback
    code = compile(program + "main()\n", str(path), "exec")
    with pytest.raises(Exception, match="train it first") as raised:
        exec(code, {"__name__": "__main__"})
    exc = raised.value
    exc.__traceback__ = exc.__traceback__.tb_next  # the frame of this test
    assert describe(exc)["traceback"] == printed


def test_links_are_told_apart():
    error = describe(caught(chained_thrice))
    assert (error["type"], error["context"]["type"]) == ("FileNotFoundError", "RuntimeError")
    assert "cause" not in error
    assert error["context"]["cause"]["type"] == "KeyError"
    assert error["context"]["cause"]["context"]["message"] == "bad operand"
    assert not {"cause", "context"} & set(describe(caught(from_none)))
    assert "traceback" not in error["context"]  # the whole error has the text


def test_the_fallback_has_the_same_sentences():
    error = describe(caught(chained_thrice))
    del error["traceback"]
    text = render(error)
    assert text.count("The above exception was the direct cause of the following exception:") == 1
    assert text.count("During handling of the above exception, another exception occurred:") == 2
    assert text.endswith("FileNotFoundError: [Errno 2] no such file\n")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups and notes came with Python 3.11")
def test_members_of_a_group():
    error = describe(caught(group))
    assert [member["type"] for member in error["errors"]] == ["ValueError", "KeyError", "ExceptionGroup"]
    assert error["errors"][1]["context"]["type"] == "ValueError"
    assert [member["type"] for member in error["errors"][2]["errors"]] == ["KeyError", "ValueError"]
    del error["traceback"]
    text = render(error)
    assert "  | KeyError: 'color'\n" in text
    assert "  |   | ValueError: 5\n" in text
    assert len(describe(caught(large_group))["errors"]) == 16


def test_notes_are_in_the_text_on_every_version():
    exc = caught(plain)
    exc.__dict__["__notes__"] = ["the first", "the second"]
    error = describe(exc)
    assert error["notes"] == ["the first", "the second"]
    assert error["traceback"].endswith("\nValueError: bad operand\nthe first\nthe second\n")


def test_types():
    import json

    error = describe(caught(lambda: json.loads("{")))
    assert (error["type"], error["module"], error["bases"]) == (
        "JSONDecodeError",
        "json.decoder",
        ["ValueError", "Exception"],
    )
    error = describe(caught(own_class))
    assert (error["type"], error["module"], error["bases"]) == ("NotTrained", "__main__", ["Exception"])
    error = describe(caught(plain))
    assert (error["type"], error["bases"]) == ("ValueError", ["Exception"])
    assert "module" not in error
    error = describe(caught(class_in_a_function))
    assert error["type"] == "class_in_a_function.<locals>.Inner"
    own = type("Derived", (NotTrained, json.JSONDecodeError), {"__init__": Exception.__init__})
    assert describe(own())["bases"] == ["NotTrained", "json.decoder.JSONDecodeError", "ValueError", "Exception"]
    for n in range(40):
        own = type(f"Derived{n}", (own,), {})
    assert len(describe(own())["bases"]) == 16
    assert "bases" not in describe(KeyboardInterrupt.__base__())


def test_a_last_line_alone_is_no_traceback():
    assert "traceback" not in describe(ValueError("not raised"))


def test_a_long_text_loses_its_middle():
    exc = ValueError("".join(f"line {n}\n" for n in range(20_000)) + "the end")
    text = traceback_text(exc, [])
    assert text.startswith("ValueError: line 0\nline 1\n")
    assert text.endswith("line 19999\nthe end\n")
    left_out = re.search(r"\n  \[(\d+) bytes left out\]\nline (\d+)\n", text)
    assert left_out
    whole = "".join(traceback.format_exception_only(ValueError, exc))
    assert len(text) - len(left_out.group(0).split("\n")[1]) - 1 + int(left_out.group(1)) == len(whole)
    assert 50 << 10 < len(text) <= 64 << 10
    for message in ("x" * 100_000, "é" * 100_000):
        text = traceback_text(ValueError(message), [])
        assert len(text.encode()) <= 64 << 10
        assert text.endswith(message[:1] * 1000 + "\n")
        remote = RemoteError({"type": "E", "message": "m", "traceback": message})
        assert len(describe(remote)["cause"]["traceback"].encode()) <= 64 << 10


def test_frames_of_the_bridge_and_of_imports_are_left_out():
    from snakepit_bridge._errors import attempt

    def inner():
        importlib.import_module("no_such_module_at_all")

    with pytest.raises(ImportError) as raised:
        attempt_and_raise(attempt, inner)
    text = describe(raised.value)["traceback"]
    assert "in inner\n" in text
    assert "snakepit_bridge" not in text
    assert "<frozen importlib" not in text


def attempt_and_raise(attempt, function):
    raised = []

    def keep():
        try:
            function()
        except BaseException as exc:
            raised.append(exc)
            raise

    attempt(None, keep)
    raise raised[0]


def test_a_remote_error_s_own_traceback_stands_first():
    remote = {
        "type": "fs.PathError",
        "message": "no such file",
        "traceback": "goroutine 7:\nfs.PathError: no such file",
    }
    first = (
        "goroutine 7:\nfs.PathError: no such file\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
    )

    def call():
        raise RemoteError(remote)

    error = describe(caught(call))
    assert error["traceback"].startswith(first + "Traceback (most recent call last):\n")
    assert error["traceback"].endswith("\nsnakepit_bridge.RemoteError: fs.PathError: no such file\n")
    assert error["cause"]["traceback"] == remote["traceback"]

    deeper = describe(caught(lambda: wrap(KeyError("x"), call)))["traceback"]
    assert deeper.startswith(first)
    assert deeper.count("The above exception was the direct cause") == 2
    if sys.version_info >= (3, 11):
        grouped = ExceptionGroup("outer", [caught(call)])  # noqa: F821
        assert "| fs.PathError: no such file\n" in describe(grouped)["traceback"]


class Restless:
    """A property that gives another exception each time."""

    def __get__(self, instance, owner):
        return type(instance)("again")


@pytest.mark.parametrize("name", ["__cause__", "__context__"])
def test_a_chain_that_never_ends(name):
    error = describe(type("Odd", (ValueError,), {name: Restless()})("the reason"))
    assert error["message"] == "the reason"
    assert "traceback" not in error


def test_attributes_that_never_end():
    def __getattribute__(self, name):
        return type(self)("again") if name == "__context__" else ValueError.__getattribute__(self, name)

    error = describe(type("Odd", (ValueError,), {"__getattribute__": __getattribute__})("the reason"))
    assert "traceback" not in error


def test_a_chain_is_bounded():
    first = exc = ValueError(0)
    for n in range(10_000):
        exc.__context__ = ValueError(n)
        exc = exc.__context__
    error = describe(first)
    assert "traceback" not in error
    depth = 0
    while "context" in error:
        error, depth = error["context"], depth + 1
    assert depth == 8


def test_a_chain_in_a_circle():
    one, other = ValueError(1), KeyError(2)
    one.__context__, other.__cause__ = other, one
    error = describe(one)
    assert error["context"]["type"] == "KeyError"
    assert "cause" not in error["context"]
    assert error["traceback"] == "".join(traceback.format_exception(type(one), one, None))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_groups_in_groups_are_bounded():
    exc = ValueError(1)
    for n in range(30):
        exc = ExceptionGroup(str(n), [exc, *(ValueError(m) for m in range(20))])  # noqa: F821
    counted, left = 0, [describe(exc)]
    while left:
        counted += 1
        left += left.pop().get("errors", ())
    assert counted <= 64

    endless = [lambda self: iter(int, 1), lambda self: (type(self)("again", [ValueError(2)]),)]
    for exceptions in endless:
        odd = type("Odd", (ExceptionGroup,), {"exceptions": property(exceptions)})  # noqa: F821
        for exc in (odd("the reason", [ValueError(1)]), ExceptionGroup("the reason", [odd("x", [ValueError(1)])])):  # noqa: F821
            error = describe(exc)
            assert "traceback" not in error
            assert error["message"].startswith("the reason")
