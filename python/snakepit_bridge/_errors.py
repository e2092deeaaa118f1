"""The package's exceptions, and the form in which an exception travels.

BaseException
 └ Cancelled                in a handler: its call was cancelled
Exception
 └ SnakepitError
    ├ RemoteError           a function of the host failed
    ├ ItemError             one item failed, the stream goes on
    └ Disconnected          the host is gone
ValueError
 └ BadValue                 a value that can't travel; its message names the path to it
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Optional, Set, Union

from ._late import stdlib_first

HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
"""What begins the file name of every frame of the bridge."""

_MESSAGE = 16 << 10
_FRAMES = 64
_SOURCE = 500
_CAUSES = 8
_NOTES = 16


class Cancelled(BaseException):
    """The call that this handler serves was cancelled: its caller left, or its time is up.

    Not an ``Exception``, so that ``except Exception`` does not swallow it. Clean up and let it pass.
    """


class SnakepitError(Exception):
    """What the bridge raises."""


class Disconnected(SnakepitError):
    """The host is gone, or this is a forked child, which has no host."""


class RemoteError(SnakepitError):
    """A function of the host failed.

    Attributes:
        type: The type of the host's error, such as "*fs.PathError".
        message: What it says.
        error: The whole error, as docs/protocol.md has it.
    """

    def __init__(self, error: Mapping[str, Any]) -> None:
        self.error = dict(error)
        self.type = str(self.error.get("type", ""))
        self.message = str(self.error.get("message", ""))
        super().__init__(f"{self.type}: {self.message}" if self.message else self.type)

    def traceback(self) -> str:
        """Returns the error with its frames and causes, the way Python prints them."""
        return render(self.error)

    def __reduce__(self) -> Any:
        return RemoteError, (self.error,)


class ItemError(SnakepitError):
    """One item of a stream failed; the stream goes on.

    Yield it from a generator in an item's place. A stream that is received has it in an item's place.

    Attributes:
        error: What happened.
    """

    def __init__(self, error: Union[BaseException, str]) -> None:
        self.error = error if isinstance(error, BaseException) else ValueError(error)
        super().__init__(str(error))


class ProtocolError(SnakepitError):
    """The host broke the protocol, so the connection is of no use."""


for _public in (Cancelled, SnakepitError, Disconnected, RemoteError, ItemError):
    _public.__module__ = "snakepit_bridge"


def describe(exc: BaseException) -> Dict[str, Any]:
    """Returns the structured error of docs/protocol.md. It is bounded, whatever the exception holds, and its texts are valid UTF-8."""
    return _describe(exc, set(), _CAUSES)


def plain(kind: str, message: str) -> Dict[str, Any]:
    """Returns a structured error without a traceback."""
    return {"type": kind, "message": clean(message)}


def clean(text: str, limit: int = _MESSAGE) -> str:
    """Returns text without lone surrogates, cut to the limit."""
    if len(text) > limit:
        text = f"{text[:limit]}... ({len(text) - limit} characters more)"
    return text.encode("utf-8", "replace").decode("utf-8")


def type_name(kind: type) -> str:
    module = kind.__module__
    return clean(kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}", 500)


def _describe(exc: BaseException, seen: Set[int], depth: int) -> Dict[str, Any]:
    seen.add(id(exc))
    error: Dict[str, Any] = {"type": type_name(type(exc)), "message": _text(exc)}
    frames = _frames(exc)
    if isinstance(exc, SyntaxError) and exc.filename:
        source = {"source": clean(exc.text.strip(), _SOURCE)} if exc.text else {}
        frames.append({"file": clean(exc.filename), "line": exc.lineno or 0, "function": "<module>", **source})
    if frames:
        error["frames"] = frames
    notes = [clean(str(note)) for note in getattr(exc, "__notes__", None) or ()]
    for one in getattr(exc, "exceptions", None) or ():  # an ExceptionGroup
        if isinstance(one, BaseException):
            notes.append(f"{type_name(type(one))}: {_text(one)}")
    if notes:
        error["notes"] = notes[:_NOTES]
    cause = exc.__cause__
    if cause is None and not exc.__suppress_context__:
        cause = exc.__context__
    if cause is not None and id(cause) not in seen and depth > 0:
        error["cause"] = _describe(cause, seen, depth - 1)
    elif isinstance(exc, RemoteError) and depth > 0:
        error["cause"] = exc.error
    return error


def _text(exc: BaseException) -> str:
    try:
        return clean(str(exc))
    except Exception as broken:  # a __str__ of the user's that raises
        return f"<no message: str() raised {type_name(type(broken))}>"


def _frames(exc: BaseException) -> List[Dict[str, Any]]:
    with stdlib_first():
        import linecache
    places = []
    tb = exc.__traceback__
    while tb is not None:
        name = tb.tb_frame.f_code.co_filename
        if not name.startswith((HERE, "<frozen importlib")):
            places.append((tb.tb_frame, tb.tb_lineno))
        tb = tb.tb_next
    left_out = len(places) - _FRAMES
    if left_out > 0:
        del places[_FRAMES // 4 : _FRAMES // 4 + left_out]
    frames: List[Dict[str, Any]] = []
    for frame, line in places:
        code = frame.f_code
        if left_out > 0 and len(frames) == _FRAMES // 4:
            frames.append({"file": "", "line": 0, "function": f"[{left_out} frames left out]"})
        entry: Dict[str, Any] = {"file": clean(code.co_filename), "line": line or 0, "function": clean(_name(code))}
        source = linecache.getline(code.co_filename, line or 0, frame.f_globals).strip()
        if source:
            entry["source"] = clean(source, _SOURCE)
        frames.append(entry)
    return frames


def _name(code: Any) -> str:
    return str(getattr(code, "co_qualname", code.co_name))  # 3.11 and later


def render(error: Optional[Mapping[str, Any]]) -> str:
    """Returns a structured error the way Python prints a traceback."""
    if not error:
        return ""
    text = render(error.get("cause"))
    if text:
        text += "\nThe above exception led to the following one:\n\n"
    frames = error.get("frames") or ()
    if frames:
        text += "Traceback (most recent call last):\n"
    for frame in frames:
        text += f'  File "{frame.get("file")}", line {frame.get("line")}, in {frame.get("function")}\n'
        if frame.get("source"):
            text += f"    {frame['source']}\n"
    return text + ": ".join(filter(None, (error.get("type"), error.get("message")))) + "\n"
