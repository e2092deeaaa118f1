"""A command: its function, and how that takes its arguments."""

from __future__ import annotations

from types import MethodType
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from ._stdlib import stdlib_first

_GENERATOR = 0x20  # code flags of the module inspect, which takes 16 ms to import
_COROUTINE = 0x80
_ASYNC_GENERATOR = 0x200


Convert = Callable[[Tuple[Any, ...], Dict[str, Any]], Tuple[Any, ...]]
"""Converts the arguments of a call: the keyword arguments in place, and the positional ones by returning them."""


class Command:
    """A command of the worker.

    Attributes:
        stream: Whether it yields items.
        is_async: Whether it needs a loop.
        ctx: How it takes its context: None for not at all, True as its first argument, False by keyword.
        checked: Whether its arguments are converted by annotations.
        convert: What converts them. It is None until the first call, and if no annotation demands anything.
    """

    __slots__ = ("checked", "convert", "ctx", "function", "is_async", "name", "stream")

    def __init__(self, name: str, function: Callable[..., Any], validate: bool = True) -> None:
        self.name = name
        self.function = function
        names, first, self.stream, self.is_async = examine(function)
        self.ctx: Optional[bool] = None
        if "ctx" in names:
            self.ctx = first == "ctx"
        self.checked = validate and _is_annotated(function)
        self.convert: Optional[Convert] = None

    @staticmethod
    def arrange(value: Any) -> Tuple[Tuple[Any, ...], Dict[str, Any]]:
        """Returns the positional arguments and the keyword arguments.

        A map becomes keyword arguments, None no argument, and any other value the one positional argument.
        """
        if type(value) is dict:
            return (), value
        return (() if value is None else (value,)), {}


def layers(function: Any) -> Iterator[Tuple[Any, bool]]:
    """Yields a function and those that it wraps by ``functools.wraps``, the innermost last.

    Beside each it yields whether the first parameter is bound, as that of a method is.
    """
    bound = False
    while True:
        if isinstance(function, MethodType):
            bound, function = True, function.__func__
        elif not hasattr(function, "__code__") and hasattr(type(function).__call__, "__code__"):
            bound, function = True, type(function).__call__
        yield function, bound
        if not hasattr(function, "__wrapped__"):
            break
        function = function.__wrapped__


def examine(function: Any) -> Tuple[Sequence[str], str, bool, bool]:
    """Returns the parameters' names, the first one's name, whether a call yields items, and whether it needs a loop.

    The function may be wrapped by ``functools.wraps``. The innermost function has the parameters. There are items if
    any of these functions is a generator. The outermost function decides about the loop, because that one runs.
    """
    flags: List[int] = []
    for function, bound in layers(function):  # noqa: B007, B020  the last ones are the innermost
        code = getattr(function, "__code__", None)
        flags.append(code.co_flags if code is not None else 0)
    if code is None:  # built in, or functools.partial
        names, first = _parameters(function), ""
    else:
        names = code.co_varnames[bound : code.co_argcount + code.co_kwonlyargcount]
        first = names[0] if code.co_argcount > bound else ""
    streams = any(flag & (_GENERATOR | _ASYNC_GENERATOR) for flag in flags)
    return names, first, streams, bool(flags[0] & (_COROUTINE | _ASYNC_GENERATOR))


def innermost(function: Any) -> Tuple[Any, bool]:
    """Returns the last of `layers`, and what a ``functools.partial`` calls in place of itself."""
    while True:
        for function, bound in layers(function):  # noqa: B007, B020
            pass
        if hasattr(function, "__code__") or not hasattr(function, "func"):
            return function, bound
        function = function.func


def _is_annotated(function: Any) -> bool:
    annotations = getattr(innermost(function)[0], "__annotations__", None) or ()
    return any(name not in ("ctx", "return") for name in annotations)


def _parameters(function: Callable[..., Any]) -> Sequence[str]:
    with stdlib_first():
        import inspect
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:  # some functions in C have no signature
        return ()
