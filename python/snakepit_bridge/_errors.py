"""The package's exceptions, and the form in which an exception travels.

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
from itertools import islice
from typing import Any, Callable, Dict, List, Mapping, Optional, Set, TypeVar, Union

from ._stdlib import stdlib_first

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

# The limits of a structured error.
_MESSAGE = 16 << 10  # characters of one text
_FRAMES = 64
_SOURCE = 500  # characters of a frame's line of source
_CAUSES = 8
_NOTES = 16
_FRAME = ("file", "line", "function", "source")

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
        type: The type of the host's error, such as "*fs.PathError".
        message: The message of the host's error.
        error: The whole error, in the form that docs/protocol.md defines.
    """

    def __init__(self, error: Mapping[str, Any]) -> None:
        self.error = dict(error)
        self.type = str(self.error.get("type", ""))
        self.message = str(self.error.get("message", ""))
        super().__init__(f"{self.type}: {self.message}" if self.message else self.type)

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


def describe(exc: BaseException) -> Dict[str, Any]:
    """Returns the structured error of docs/protocol.md. It never raises.

    The error is bounded, and its texts are valid UTF-8.
    """
    try:
        return _describe(exc, set(), _CAUSES)
    except BaseException:  # such as too little memory
        return {"type": type_name(type(exc)), "message": "this error can't be described"}


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


def type_name(type_: type) -> str:
    """Returns the type's full name. It never raises, because it does not call a metaclass."""
    name = clean(_qualname_of(type_), 500)
    module = attempt("", _module_text, type_)
    return name if module in ("", "builtins") else clean(f"{module}.{name}", 500)


def _module_text(type_: type) -> str:
    return clean(str(_module_of(type_)), 500)  # the class may have set anything


_cause_of = BaseException.__dict__["__cause__"].__get__
_context_of = BaseException.__dict__["__context__"].__get__
_suppresses_context = BaseException.__dict__["__suppress_context__"].__get__
_NOTHING: List[Any] = []
_traceback_of = BaseException.__dict__["__traceback__"].__get__


def _describe(exc: BaseException, seen: Set[int], depth: int) -> Dict[str, Any]:
    type_ = type(exc)
    seen.add(id(exc))
    error: Dict[str, Any] = {"type": type_name(type_), "message": text_of(exc)}
    if not issubclass(type_, BaseException):
        return error
    frames = attempt(_NOTHING, _frames, exc)
    if issubclass(type_, SyntaxError):
        frames = [*frames, *attempt(_NOTHING, _syntax_frame, exc)]
    if frames:
        error["frames"] = frames
    notes = [*attempt(_NOTHING, _notes, exc), *attempt(_NOTHING, _members, exc)]
    if notes:
        error["notes"] = notes[:_NOTES]
    cause = _cause_of(exc)
    if cause is None and not _suppresses_context(exc):
        cause = _context_of(exc)
    if cause is not None and id(cause) not in seen and depth > 0:
        error["cause"] = _describe(cause, seen, depth - 1)
    elif issubclass(type_, RemoteError) and depth > 0:
        remote = attempt(None, _remote, exc, depth)
        if remote is not None:
            error["cause"] = remote
    return error


def _remote(exc: Any, depth: int) -> Optional[Dict[str, Any]]:
    return _sound(exc.error, depth - 1)


def _sound(error: Any, depth: int) -> Optional[Dict[str, Any]]:
    """Returns the valid parts of a structured error. The program may make a RemoteError of anything."""
    if type(error) is not dict:
        return None
    sound: Dict[str, Any] = {"type": text_of(error.get("type", "")), "message": text_of(error.get("message", ""))}
    frames = [
        {
            key: _line(value) if key == "line" else text_of(value, _SOURCE)
            for key, value in frame.items()
            if key in _FRAME
        }
        for frame in _some(error.get("frames"), 2 * _FRAMES)
        if type(frame) is dict
    ]
    notes = [text_of(note) for note in _some(error.get("notes"), _NOTES)]
    cause = _sound(error.get("cause"), depth - 1) if depth > 0 else None
    sound.update({key: value for key, value in (("frames", frames), ("notes", notes), ("cause", cause)) if value})
    return sound


def _some(entries: Any, most: int) -> List[Any]:
    """Returns the first entries of a list or tuple. Anything else has none."""
    return list(islice(entries, most)) if issubclass(type(entries), (list, tuple)) else []


def _notes(exc: Any) -> List[str]:
    notes = getattr(exc, "__notes__", None)
    if notes is None:
        return []
    if not issubclass(type(notes), (list, tuple)):
        return [text_of(notes)]
    return [text_of(note) for note in _some(notes, _NOTES)]


def _members(exc: Any) -> List[str]:
    """Describes the members of an ExceptionGroup. Other exceptions may have an attribute of the same name."""
    members = _some(getattr(exc, "exceptions", None), _NOTES)
    return [f"{type_name(type(one))}: {text_of(one)}" for one in members if issubclass(type(one), BaseException)]


def _syntax_frame(exc: Any) -> List[Dict[str, Any]]:
    """Returns the place that a SyntaxError names. Its fields may hold anything, because the program may raise it."""
    if exc.filename is None:
        return []
    frame = {"file": text_of(exc.filename), "line": _line(exc.lineno), "function": "<module>"}
    if exc.text is not None:
        source = text_of(exc.text).strip()
        if source:
            frame["source"] = clean(source, _SOURCE)
    return [frame]


def _line(number: Any) -> int:
    return number if type(number) is int and 0 <= number < 1 << 31 else 0


def _frames(exc: BaseException) -> List[Dict[str, Any]]:
    places = []
    tb = _traceback_of(exc)
    while tb is not None:
        name = clean(tb.tb_frame.f_code.co_filename)
        if not name.startswith((HERE, "<frozen importlib")):
            places.append((tb.tb_frame, name, _line(tb.tb_lineno)))
        tb = tb.tb_next
    left_out = len(places) - _FRAMES
    if left_out > 0:
        del places[_FRAMES // 4 : _FRAMES // 4 + left_out]
    frames: List[Dict[str, Any]] = []
    for frame, name, line in places:
        if left_out > 0 and len(frames) == _FRAMES // 4:
            frames.append({"file": "", "line": 0, "function": f"[{left_out} frames left out]"})
        entry: Dict[str, Any] = {"file": name, "line": line, "function": clean(_name(frame.f_code))}
        source = attempt("", _source, frame, line)  # the module's loader may be the program's
        if source:
            entry["source"] = source
        frames.append(entry)
    return frames


def _source(frame: Any, line: int) -> str:
    with stdlib_first():
        import linecache
    return clean(linecache.getline(frame.f_code.co_filename, line, frame.f_globals).strip(), _SOURCE)


def _name(code: Any) -> Any:
    return getattr(code, "co_qualname", code.co_name)  # 3.11 and later


def shown(value: Any, limit: int = 1000) -> str:
    """Returns the repr() of any value, cut to the limit. It never raises."""
    return text_of(value, limit, repr)


def render(error: Optional[Mapping[str, Any]]) -> str:
    """Returns a structured error in the format of Python's tracebacks."""
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
