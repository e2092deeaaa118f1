"""The forms of the decorators, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

import snakepit_bridge
import snakepit_bridge.testing
from snakepit_bridge import RemoteError, Worker


def test_the_forms_of_the_decorators():
    worker = Worker()

    @worker.command("first")
    def one(): ...

    @worker.command(name="second", validate=False)
    def two(a: int): ...

    @worker.command()
    def third(): ...

    @worker.command(validate=False)
    def fourth(a: int): ...

    @worker.service
    class Service:
        @snakepit_bridge.command("fifth")
        def one(self): ...

        @snakepit_bridge.command(name="sixth", validate=False)
        def two(self, a: int) -> Any:
            return a

        @snakepit_bridge.command(validate=False)
        def seventh(self): ...

        @snakepit_bridge.command
        def eighth(self, a: int): ...

    assert list(worker._listing()) == ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"]
    commands = worker._commands()
    assert [commands[name].checked for name in ("second", "fourth")] == [False, False]
    with snakepit_bridge.testing.load(worker) as caller:
        assert caller.call("sixth", {"a": "x"}) == "x"
        with pytest.raises(RemoteError, match="BadArguments"):
            caller.call("eighth", {"a": "x"})


@pytest.mark.parametrize("make", [lambda: Worker().command, lambda: snakepit_bridge.command])
@pytest.mark.parametrize(
    "use",
    [
        lambda command: command(5),
        lambda command: command(5, name="x"),
        lambda command: command("x", name="y"),
        lambda command: command(""),
        lambda command: command("x")("y"),
        lambda command: command(validate=False)(5),
    ],
)
def test_a_wrong_use_of_a_decorator_names_the_right_one(make, use):
    with pytest.raises(TypeError, match=r"command\b.*"):
        use(make())


def test_the_message_of_a_wrong_use():
    with pytest.raises(TypeError) as caught:
        Worker().command(5)
    assert (
        str(caught.value)
        == 'command() got 5: write @worker.command, @worker.command("name") or @worker.command(name="name")'
    )
