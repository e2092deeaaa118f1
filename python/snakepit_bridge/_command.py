"""A command: its function, and how that takes its arguments."""

from __future__ import annotations

from types import MethodType
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ._stdlib import stdlib_first

_GENERATOR = 0x20  # code flags of the module inspect, which takes 16 ms to import
_COROUTINE = 0x80
_ASYNC_GENERATOR = 0x200


class Command:
    """A command of the worker.

    Attributes:
        stream: Whether it yields items.
        is_async: Whether it needs a loop.
        ctx: How it takes its context: None for not at all, True as its first argument, False by keyword.
    """

    __slots__ = ("ctx", "function", "is_async", "name", "stream")

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self.function = function
        names, first, self.stream, self.is_async = examine(function)
        self.ctx: Optional[bool] = None
        if "ctx" in names:
            self.ctx = first == "ctx"

    def arrange(self, value: Any, ctx: Any) -> Tuple[Sequence[Any], Mapping[str, Any]]:
        """Returns the positional arguments and the keyword arguments.

        A map becomes keyword arguments, None no argument, and any other value the one positional argument.

        Raises:
            TypeError: The map has a key ``ctx``, but that is the parameter for the context.
        """
        args: Tuple[Any, ...] = ()
        kwargs: Dict[str, Any] = {}
        if type(value) is dict:
            kwargs = value
        elif value is not None:
            args = (value,)
        if self.ctx is None:
            return args, kwargs
        if "ctx" in kwargs:
            raise TypeError(f"{self.name}() takes its context as ctx, so that can't be an argument's name")
        if self.ctx:
            return (ctx, *args), kwargs
        kwargs["ctx"] = ctx
        return args, kwargs


def examine(function: Any) -> Tuple[Sequence[str], str, bool, bool]:
    """Returns the parameters' names, the first one's name, whether a call yields items, and whether it needs a loop.

    The function may be wrapped by ``functools.wraps``. The innermost function has the parameters. There are items if
    any of these functions is a generator. The outermost function decides about the loop, because that one runs.
    """
    bound = False
    flags: List[int] = []
    while True:
        if isinstance(function, MethodType):
            bound, function = True, function.__func__
        elif not hasattr(function, "__code__") and hasattr(type(function).__call__, "__code__"):
            bound, function = True, type(function).__call__
        code = getattr(function, "__code__", None)
        flags.append(code.co_flags if code is not None else 0)
        if not hasattr(function, "__wrapped__"):
            break
        function = function.__wrapped__
    if code is None:  # built in, or functools.partial
        names, first = _parameters(function), ""
    else:
        names = code.co_varnames[bound : code.co_argcount + code.co_kwonlyargcount]
        first = names[0] if code.co_argcount > bound else ""
    streams = any(flag & (_GENERATOR | _ASYNC_GENERATOR) for flag in flags)
    return names, first, streams, bool(flags[0] & (_COROUTINE | _ASYNC_GENERATOR))


def _parameters(function: Callable[..., Any]) -> Sequence[str]:
    with stdlib_first():
        import inspect
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:  # some functions in C have no signature
        return ()
