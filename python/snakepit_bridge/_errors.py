"""The package's exceptions, and what its modules need to speak of any exception.

BaseException
 └ Cancelled                in a handler: its call was cancelled
Exception
 └ SnakepitError
    ├ RemoteError           a function of the host failed
    ├ ItemError             one item failed, the stream goes on
    ├ Disconnected          the host is gone
    ├ BadValue              a value cannot travel; also a ValueError
    └ Unavailable           a transport or codec cannot work in this interpreter
"""

from __future__ import annotations

import os
import re
from typing import Any, Callable, Dict, List, Mapping, Sequence, TypeVar, Union

HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
"""The prefix of the file names of the bridge's own frames."""

# The types of error that the protocol defines. docs/protocol.md says when each is sent. Other types are the program's.
UNKNOWN_COMMAND = "UnknownCommand"
DRAINING = "Draining"
SATURATED = "Saturated"
CANCELLED = "Cancelled"
BAD_ARGUMENTS = "BadArguments"
BAD_RESULT = "BadResult"
TOO_LARGE = "TooLarge"

_MESSAGE = 16 << 10  # characters of one text
_NAME = 500  # characters of a type's name
_KEY = 40  # characters of a key in a path

# The lines of Python's tracebacks between an exception and the one that it led to.
_FROM_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_FROM_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"

_T = TypeVar("_T")


class Cancelled(BaseException):
    """The call that this handler serves was cancelled: its caller left, or its time is up.

    It is not an ``Exception``, so ``except Exception`` does not swallow it. Clean up and let it pass.
    """


class SnakepitError(Exception):
    """The base class of the bridge's errors."""


class Disconnected(SnakepitError):
    """The host is gone, or this is a forked child, which has no host."""


class RemoteError(SnakepitError):
    """A function of the host failed.

    Attributes:
        type: The type of the host's error, such as "fs.PathError".
        module: The module of an exception's class, such as "json.decoder". It is "" for builtins, and for errors of Go.
        bases: The names of its base classes, the nearest first. Go errors have none.
        message: The message of the host's error.
        data: What the host's error gives to programs, or None. A Go error gives the result of its method SnakepitData.
        error: The whole error, in the form that docs/protocol.md defines.
    """

    def __init__(self, error: Mapping[str, Any]) -> None:
        self.error = dict(error)
        self.type = str(self.error.get("type", ""))
        self.module = str(self.error.get("module", ""))
        self.bases = tuple(self.error.get("bases") or ())
        self.message = str(self.error.get("message", ""))
        self.data: Any = self.error.get("data")
        super().__init__(last_line(self.error))

    def is_a(self, name: str) -> bool:
        """Reports whether the error is of a class or of one that is derived from it.

        Args:
            name: The name of the class: bare, such as "ValueError", or full, such as "json.decoder.JSONDecodeError".
                It matches as snakepit.Exception does in Go.
        """
        full = f"{self.module}.{self.type}" if self.module else self.type
        return any(f".{known}".endswith(f".{name}") for known in (full, *self.bases))

    def traceback(self) -> str:
        """Returns the error with its frames and causes, in the format of Python's tracebacks."""
        return render(self.error)

    def __reduce__(self) -> Any:
        return RemoteError, (self.error,)


class ItemError(SnakepitError):
    """One item of a stream failed; the stream goes on.

    Yield it from a generator in place of an item. A received stream has it in place of a failed item.

    Attributes:
        error: The item's exception. A text becomes a ValueError.
    """

    def __init__(self, error: Union[BaseException, str]) -> None:
        self.error = error if isinstance(error, BaseException) else ValueError(error)
        super().__init__(text_of(error))


class BadValue(SnakepitError, ValueError):
    """A value can't travel, or a body can't be decoded.

    The message begins with the path to the cause, such as ``value.items[3].when``.
    """


class Unavailable(SnakepitError):
    """The transport or the codec can't work in this interpreter.

    Attributes:
        remedy: What to do, such as an install command for this interpreter. It may be empty.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class ProtocolError(SnakepitError):
    """The host broke the protocol. The connection can't be used any more."""


for _public in (Cancelled, SnakepitError, Disconnected, RemoteError, ItemError, BadValue):
    _public.__module__ = "snakepit_bridge"


# The functions below inspect objects of the program after a failure. The methods, attributes and classes of these
# objects may do anything. So the functions read the fields that the interpreter itself keeps. Where they have to run
# code of the program, they do so in `attempt`.


def attempt(default: _T, function: Callable[..., _T], *args: Any) -> _T:
    """Returns what the function returns, or the default if it raises anything at all."""
    try:
        return function(*args)
    except BaseException:
        return default


def simple_error(error_type: str, message: str) -> Dict[str, Any]:
    """Returns a structured error without a traceback."""
    return {"type": error_type, "message": clean(message)}


def clean(text: str, limit: int = _MESSAGE) -> str:
    """Returns text without lone surrogates, cut to the limit, as an exact str."""
    text = str.__str__(text)
    if len(text) > limit:
        text = f"{text[:limit]}... ({len(text) - limit} characters more)"
    return text.encode("utf-8", "replace").decode("utf-8")


def text_of(value: Any, limit: int = _MESSAGE, convert: Callable[[Any], str] = str) -> str:
    """Returns the str() of any value, or the text of another converter, cut to the limit. It never raises."""
    try:
        return clean(convert(value), limit)
    except BaseException as broken:  # raised by the program's code
        return f"<no text: {convert.__name__}() raised {type_name(type(broken))}>"


_module_of = type.__dict__["__module__"].__get__
_qualname_of = type.__dict__["__qualname__"].__get__


def qualname_of(type_: type) -> str:
    """Returns the type's qualified name, without its module. It never raises, because it does not call a metaclass."""
    return clean(_qualname_of(type_), _NAME)


def module_of(type_: type) -> str:
    """Returns the name of the type's module, or "" for a builtin. It never raises."""
    module = attempt("", _module_text, type_)
    return "" if module == "builtins" else module


def type_name(type_: type) -> str:
    """Returns the type's name as a traceback shows it: with its module, unless that is builtins or ``__main__``."""
    return full_name(module_of(type_), qualname_of(type_))


def full_name(module: str, name: str) -> str:
    """Returns a type's name as a traceback shows it."""
    return name if module in ("", "__main__") else clean(f"{module}.{name}", _NAME)


def _module_text(type_: type) -> str:
    return clean(str(_module_of(type_)), _NAME)  # the class may have set anything


def shown(value: Any, limit: int = 1000) -> str:
    """Returns the repr() of any value, cut to the limit. It never raises."""
    return text_of(value, limit, repr)


def shown_path(path: Sequence[Any]) -> str:
    """Returns the text of a path, such as "orders[2].price". It begins with the name of an argument or a value."""
    text = ""
    for step in path:
        if type(step) is int:
            text += f"[{step}]"
        elif not text:
            text = step
        elif len(step) <= _KEY and re.fullmatch(r"\w+", step, re.ASCII):
            text += "." + step
        else:
            text += f"[{step if len(step) <= _KEY else step[:_KEY] + '...'!a}]"
    return text if len(text) <= 160 else text[:80] + "..." + text[-80:]


def last_line(error: Mapping[str, Any]) -> str:
    """Returns the type and the message of a structured error, as the last line of a traceback has them."""
    module, name, message = (str(error.get(key, "")) for key in ("module", "type", "message"))
    return ": ".join(filter(None, (full_name(module, name), message)))


def render(error: Mapping[str, Any]) -> str:
    """Returns a structured error as a traceback: the text that it brings, or one in the format of Python's."""
    if error.get("traceback"):
        return str(error["traceback"])
    text = ""
    if error.get("cause"):
        text = render(error["cause"]) + _FROM_CAUSE
    elif error.get("context"):
        text = render(error["context"]) + _FROM_CONTEXT
    frames = error.get("frames") or ()
    if frames:
        text += "Traceback (most recent call last):\n"
    for frame in frames:
        text += f'  File "{frame.get("file")}", line {frame.get("line")}, in {frame.get("function")}\n'
        if frame.get("source"):
            text += f"    {frame['source']}\n"
    lines: List[str] = [last_line(error), *(error.get("notes") or ())]
    text += "".join(f"{line}\n" for line in lines)
    members = error.get("errors") or ()
    for number, member in enumerate(members, 1):
        text += f"  +---------------- {number} ----------------\n"
        text += "".join(f"  | {line}\n" for line in render(member).splitlines())
    return text + "  +------------------------------------\n" if members else text
