"""A command: its function, and how that takes its arguments."""

from __future__ import annotations

from functools import partial
from types import MethodType
from typing import Any, Callable, Dict, Iterator, Optional, Sequence, Tuple

from ._stdlib import stdlib_first

RESERVED = "snakepit."
"""The names of the built-in commands begin with it, and no others do."""

_GENERATOR = 0x20  # code flags of the module inspect, which takes 16 ms to import
_COROUTINE = 0x80
_ASYNC_GENERATOR = 0x200
_VAR_KWARGS = 0x08


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

    The function may be wrapped by ``functools.wraps``. The outermost function has the parameters, unless it takes
    anything. Then the innermost one has them. There are items if any of these functions is a generator. The outermost
    function decides about the loop, because that one runs.
    """
    found = list(layers(function))
    flags = [getattr(getattr(one, "__code__", None), "co_flags", 0) for one, _ in found]
    function, bound = found[-1] if _takes_anything(*found[0]) else found[0]
    code = getattr(function, "__code__", None)
    if code is None:  # built in, or functools.partial
        names, first = _parameters(function), ""
    else:
        names = code.co_varnames[bound : code.co_argcount + code.co_kwonlyargcount]
        first = names[0] if code.co_argcount > bound else ""
    streams = any(flag & (_GENERATOR | _ASYNC_GENERATOR) for flag in flags)
    return names, first, streams, bool(flags[0] & (_COROUTINE | _ASYNC_GENERATOR))


def _takes_anything(function: Any, bound: bool, besides: str = "") -> bool:
    """Reports whether a function has no names for its arguments, as ``(*args, **kwargs)``, besides perhaps one."""
    code = getattr(function, "__code__", None)
    if code is None:
        return True
    names = code.co_varnames[bound : code.co_argcount + code.co_kwonlyargcount]
    return bool(code.co_flags & _VAR_KWARGS) and {besides}.issuperset(names)


def signer(function: Any) -> Tuple[Any, int, Optional[type]]:
    """Finds the function whose parameters and annotations count.

    This is the outermost function. If that takes anything, as a decorator's ``(*args, **kwargs)`` does, it is the
    innermost of those that it wraps. In place of a ``functools.partial`` it is what that calls.

    Returns:
        The function, how many of its first parameters have their arguments already, and the class of a method.
    """
    owner: Optional[type] = None
    given = 0
    while True:
        found = list(layers(function))
        if isinstance(function, MethodType):
            owner = function.__self__ if isinstance(function.__self__, type) else type(function.__self__)
        elif found[0][1]:
            owner = type(function)
        function, bound = found[-1] if _takes_anything(*found[0], "ctx") else found[0]
        if not isinstance(function, partial):
            return function, bound + given, owner
        given += len(function.args)
        function = function.func


def _is_annotated(function: Any) -> bool:
    annotations = getattr(signer(function)[0], "__annotations__", None) or ()
    return any(name not in ("ctx", "return") for name in annotations)


def _parameters(function: Callable[..., Any]) -> Sequence[str]:
    with stdlib_first():
        import inspect
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:  # some functions in C have no signature
        return ()
