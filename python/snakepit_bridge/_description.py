"""The form in which an exception travels: the structured error of docs/protocol.md."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any, Callable, Dict, List, Mapping, Optional, Set

from ._codec import Codec
from ._errors import (
    BadValue,
    RemoteError,
    attempt,
    clean,
    full_name,
    module_of,
    qualname_of,
    text_of,
    type_name,
)
from ._stdlib import stdlib_first
from ._tracebacks import (
    HIDDEN,
    cause_of,
    context_of,
    mro_of,
    remote_text,
    suppresses_context,
    traceback_of,
    traceback_text,
    vars_of,
)
from ._values import MAX_DEPTH

# The limits of a structured error.
_FRAMES = 64
_SOURCE = 500  # characters of a frame's line of source
_CAUSES = 8  # levels of causes, contexts and members
_MEMBERS = 16
_EXCEPTIONS = 64  # all together
_NOTES = 16
_BASES = 16

_FRAME = ("file", "line", "function", "source")
_DATA = "snakepit_data"
_LINKED = frozenset(("frames", "cause", "context", "errors"))  # without these a traceback is only its last line
_NOTHING: List[Any] = []

# The functions below inspect objects of the program after a failure. The methods, attributes and classes of these
# objects may do anything. So the functions read the fields that the interpreter itself keeps. Where they have to run
# code of the program, they do so in `attempt`.


def describe(exc: BaseException, codec: Optional[Codec] = None) -> Dict[str, Any]:
    """Returns the structured error. It never raises.

    The error is bounded, except for its data, and its texts are valid UTF-8.

    Args:
        exc: The exception.
        codec: The codec that will encode the error. Without a codec, the error has no data.
    """
    try:
        return _Description(codec).of(exc, _CAUSES, whole=True)
    except BaseException:  # such as too little memory
        return {**_identity(type(exc)), "message": "this error can't be described"}


def add_note(error: Dict[str, Any], note: str) -> None:
    """Adds a note to a structured error, and to its traceback."""
    error["notes"] = [*error.get("notes", ()), note]
    if "traceback" in error:
        error["traceback"] += f"{note}\n"


def encode_error(error: Mapping[str, Any], encode: Callable[[Any], bytes], most: int) -> bytes:
    """Returns an encoded error of at most that many bytes.

    If the whole error is larger, the traceback or the data is left out. The type and the message always remain, and
    are cut if they have to.
    """
    body = attempt(b"", encode, error)
    if body and len(body) <= most:
        return body
    why = f"the error with it has {len(body)} bytes, and the limit is {most}" if body else "it changed meanwhile"
    for text, data in ((False, True), (True, False), (False, False)):
        body = attempt(b"", encode, _smaller(error, text, data, why))
        if body and len(body) <= most:
            return body
    type_, message = str(error["type"])[:200], str(error["message"])[:1000]
    while True:  # one character may take 12 bytes
        body = encode({"type": type_, "message": message})
        if len(body) <= most or not message:
            return body
        type_, message = type_[:100], message[: len(message) // 2]


def as_json(value: Any) -> bytes:
    """Encodes an error or a report for a host that has not chosen a codec yet."""
    return json.dumps(value).encode()


def _smaller(error: Mapping[str, Any], text: bool, data: bool, why: str) -> Dict[str, Any]:
    """Returns an error, and those it is linked to, without its traceback or its data, unless they may stay."""
    smaller = {key: value for key, value in error.items() if (text or key != "traceback") and (data or key != "data")}
    if "data" in error and not data:
        add_note(smaller, f"{_LEFT_OUT}{why}")
    for link in ("cause", "context"):
        if link in smaller:
            smaller[link] = _smaller(smaller[link], text, data, why)
    if "errors" in smaller:
        smaller["errors"] = [_smaller(member, text, data, why) for member in smaller["errors"]]
    return smaller


_LEFT_OUT = f"its {_DATA} can't be sent: "


class _Description:
    """Describes one exception, with those that it is linked to."""

    def __init__(self, codec: Optional[Codec]) -> None:
        self._codec = codec
        self._seen: Set[int] = set()

    def of(self, exc: BaseException, depth: int, whole: bool = False) -> Dict[str, Any]:
        """Returns the structured error. It has the text of the traceback if it is the whole one."""
        type_ = type(exc)
        self._seen.add(id(exc))
        error = _identity(type_)
        error["message"] = text_of(exc)
        if not issubclass(type_, BaseException):
            return error
        frames = attempt(_NOTHING, _frames, exc)
        if issubclass(type_, SyntaxError):
            frames = [*frames, *attempt(_NOTHING, _syntax_frame, exc)]
        if frames:
            error["frames"] = frames
        notes = attempt(_NOTHING, _notes, exc)
        if notes:
            error["notes"] = notes
        if depth > 0:
            self._add_links(exc, error, depth - 1)
        if whole and not _LINKED.isdisjoint(error):
            text = traceback_text(exc, notes)
            if text:
                error["traceback"] = text
        if self._codec is not None and attempt(False, _offers_data, exc):
            self._add_data(exc, error, self._codec, depth)
        return error

    def _add_data(self, exc: Any, error: Dict[str, Any], codec: Codec, depth: int) -> None:
        try:
            data = exc.snakepit_data
            if callable(data):
                data = data()
            if data is not None:
                _check_data(data, codec, depth)
                error["data"] = data
        except BaseException as broken:  # raised by the program's code, or the data can't be sent
            type_ = type(broken)
            raised = "" if issubclass(type_, BadValue) else f"{type_name(type_)}: "
            add_note(error, f"{_LEFT_OUT}{raised}{text_of(broken)}")

    def _add_links(self, exc: BaseException, error: Dict[str, Any], depth: int) -> None:
        cause, context = cause_of(exc), context_of(exc)
        if cause is None and issubclass(type(exc), RemoteError):
            remote = attempt(None, self._remote, exc, depth)
            if remote is not None:
                error["cause"] = remote
        elif cause is not None and self._is_new(cause):
            error["cause"] = self.of(cause, depth)
        elif cause is None and context is not None and not suppresses_context(exc) and self._is_new(context):
            error["context"] = self.of(context, depth)
        members = [self.of(one, depth) for one in attempt(_NOTHING, _members, exc) if self._is_new(one)]
        if members:
            error["errors"] = members

    def _is_new(self, exc: object) -> bool:
        return id(exc) not in self._seen and len(self._seen) < _EXCEPTIONS

    def _remote(self, exc: Any, depth: int) -> Optional[Dict[str, Any]]:
        remote = self._sound(exc.error, depth)
        text = attempt("", remote_text, exc)
        if remote is not None and text:
            remote["traceback"] = text
        return remote

    def _sound(self, error: Any, depth: int) -> Optional[Dict[str, Any]]:
        """Returns the valid parts of a structured error. The program may make a RemoteError of anything."""
        if type(error) is not dict or not self._is_new(error):
            return None
        self._seen.add(id(error))
        sound: Dict[str, Any] = {"type": text_of(error.get("type", "")), "message": text_of(error.get("message", ""))}
        module = error.get("module")
        if type(module) is str:
            sound["module"] = clean(module)
        frames = [
            {
                key: _line(value) if key == "line" else text_of(value, _SOURCE)
                for key, value in frame.items()
                if key in _FRAME
            }
            for frame in _some(error.get("frames"), 2 * _FRAMES)
            if type(frame) is dict
        ]
        parts: Dict[str, Any] = {
            "bases": [text_of(base) for base in _some(error.get("bases"), _BASES)],
            "frames": frames,
            "notes": [text_of(note) for note in _some(error.get("notes"), _NOTES)],
        }
        data = error.get("data")
        if self._codec is not None and data is not None and attempt(False, _check_data, data, self._codec, depth):
            sound["data"] = data
        if depth > 0:
            parts["cause"] = self._sound(error.get("cause"), depth - 1)
            parts["context"] = self._sound(error.get("context"), depth - 1)
            members = [self._sound(member, depth - 1) for member in _some(error.get("errors"), _MEMBERS)]
            parts["errors"] = [member for member in members if member is not None]
        sound.update({key: value for key, value in parts.items() if value})
        return sound


def _identity(type_: type) -> Dict[str, Any]:
    error: Dict[str, Any] = {"type": qualname_of(type_)}
    module = module_of(type_)
    if module:
        error["module"] = module
    bases = [
        full_name(module_of(base), qualname_of(base))
        for base in mro_of(type_)[1:]
        if base is not BaseException and base is not object
    ]
    if bases:
        error["bases"] = bases[:_BASES]
    return error


def _check_data(data: Any, codec: Codec, depth: int) -> bool:
    """Returns True if the data of an exception can be encoded inside of the whole error.

    Raises:
        BaseException: It can't be encoded, or the data's own code raised.
    """
    inside = data
    for _ in range(2 * (_CAUSES - depth) + 2):  # each link is a map, or a list of maps; an answer's error is one, too
        inside = [inside]
    try:
        codec.encode(inside)
    except BadValue:
        codec.encode(data)
        raise BadValue(f"nested deeper than {MAX_DEPTH} levels, with the error around it") from None
    return True


_dict_of = BaseException.__dict__["__dict__"].__get__


def _offers_data(exc: BaseException) -> bool:
    """Reports whether the exception or its class has the attribute. It runs no code of the program."""
    return any(_DATA in vars_of(base) for base in mro_of(type(exc))) or _DATA in _dict_of(exc)


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


def _members(exc: Any) -> List[BaseException]:
    """Returns the members of an ExceptionGroup. Other exceptions may have an attribute of the same name."""
    members = _some(getattr(exc, "exceptions", None), _MEMBERS)
    return [one for one in members if issubclass(type(one), BaseException)]


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
    tb = traceback_of(exc)
    while tb is not None:
        name = clean(tb.tb_frame.f_code.co_filename)
        if not name.startswith(HIDDEN):
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


_getline: List[Callable[..., str]] = []


def _source(frame: Any, line: int) -> str:
    if not _getline:
        with stdlib_first():
            from linecache import getline
        _getline.append(getline)
    return clean(_getline[0](frame.f_code.co_filename, line, frame.f_globals).strip(), _SOURCE)


def _name(code: Any) -> Any:
    return getattr(code, "co_qualname", code.co_name)  # 3.11 and later
