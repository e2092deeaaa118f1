"""The text that Python prints of an exception, without the bridge's own frames."""

from __future__ import annotations

import builtins
import sys
from typing import Any, Dict, Iterator, List, Tuple

from ._errors import HERE, RemoteError, attempt, text_of
from ._stdlib import stdlib_first

HIDDEN = (HERE, "<frozen importlib")
"""The prefixes of the file names whose frames are left out."""

_TEXT = 60 << 10  # bytes of the whole text
_CHAIN = 64  # exceptions, with their causes, contexts and members

# What the interpreter itself keeps in an exception and in a type. Attributes of these names may be the program's code.
cause_of = BaseException.__dict__["__cause__"].__get__
context_of = BaseException.__dict__["__context__"].__get__
suppresses_context = BaseException.__dict__["__suppress_context__"].__get__
traceback_of = BaseException.__dict__["__traceback__"].__get__
mro_of = type.__dict__["__mro__"].__get__
vars_of = type.__dict__["__dict__"].__get__
_flags_of = type.__dict__["__flags__"].__get__

_IS_HEAP_TYPE = 1 << 9  # the type was made by a class statement
_KEPT = ("__cause__", "__context__", "__suppress_context__", "__traceback__", "__getattribute__")
_GROUP: Any = getattr(builtins, "BaseExceptionGroup", ())  # 3.11 and later


def traceback_text(exc: BaseException, notes: List[str]) -> str:
    """Returns the traceback, or "" if there is none to be made. It never raises.

    Args:
        exc: The exception.
        notes: Its notes, as texts. Python before 3.11 prints none.
    """
    return attempt("", _text, exc, notes)


def remote_text(exc: Any) -> str:
    """Returns the traceback that the host's error of a RemoteError brings, or ""."""
    text = exc.error.get("traceback")
    return _cut(text) if type(text) is str else ""


def _text(exc: BaseException, notes: List[str]) -> str:
    if not _is_printable(exc):
        return ""
    exception_class, stack_class = _classes()
    printed = exception_class(type(exc), exc, traceback_of(exc))
    for te, one in _pairs(printed, exc):
        te.stack = stack_class(frame for frame in te.stack if not frame.filename.startswith(HIDDEN))
        if not _are_texts(getattr(te, "__notes__", None)):
            te.__notes__ = [text_of(note) for note in notes] if one is exc else None
        if te.__cause__ is None and issubclass(type(one), RemoteError):
            remote = attempt("", remote_text, one)
            if remote:
                te.__cause__ = _Printed(remote)
    text = "".join(printed.format())
    if sys.version_info < (3, 11):
        own = "".join(f"{note}\n" for note in notes)
        if not text.endswith(own):
            text += own
    return _cut(text)


_loaded: List[Tuple[Any, Any]] = []


def _classes() -> Tuple[Any, Any]:
    """Returns TracebackException, and a StackSummary that remembers its lines."""
    if not _loaded:
        with stdlib_first():
            import traceback
        base: Any = traceback.StackSummary

        class Stack(base):  # type: ignore[misc]
            def format_frame_summary(self, frame_summary: Any, **options: Any) -> Any:
                """Returns the lines of a frame. Python 3.11 and later call it, and parse the source for the carets."""
                key = tuple(getattr(frame_summary, name, None) for name in _SUMMARY)
                text = _summaries.get(key)
                if text is None:
                    text = super().format_frame_summary(frame_summary, **options)
                    if len(_summaries) >= _MOST_SUMMARIES:
                        _summaries.clear()
                    _summaries[key] = text
                return text

        _loaded.append((traceback.TracebackException, Stack))
    return _loaded[0]


_summaries: Dict[Any, Any] = {}
_MOST_SUMMARIES = 256
_SUMMARY = ("filename", "lineno", "name", "line", "end_lineno", "colno", "end_colno")


def _is_printable(exc: BaseException) -> bool:
    """Reports whether TracebackException comes to an end.

    It follows attributes, which may be properties of the program that never end.
    """
    seen = {id(exc)}
    left = [exc]
    while left:
        one: Any = left.pop()
        type_ = type(one)
        is_group = issubclass(type_, _GROUP)
        kept = (*_KEPT, "exceptions") if is_group else _KEPT
        for base in mro_of(type_):
            if _flags_of(base) & _IS_HEAP_TYPE and any(name in vars_of(base) for name in kept):
                return False
        linked = [cause_of(one), context_of(one)]
        if is_group:
            linked += one.exceptions
        for other in linked:
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                left.append(other)
        if len(seen) > _CHAIN:
            return False
    return True


def _pairs(printed: Any, exc: BaseException) -> Iterator[Tuple[Any, BaseException]]:
    """Yields each TracebackException of a chain, and its exception."""
    left = [(printed, exc)]
    while left:
        te, one = left.pop()
        if te.__cause__ is not None:
            left.append((te.__cause__, cause_of(one)))
        if te.__context__ is not None:
            left.append((te.__context__, context_of(one)))
        if getattr(te, "exceptions", None):
            left += zip(te.exceptions, one.exceptions)  # type: ignore[attr-defined]
        yield te, one


def _are_texts(notes: Any) -> bool:
    return notes is None or (type(notes) in (list, tuple) and all(type(note) is str for note in notes))


class _Printed:
    """Stands for a remote error in the chain that a TracebackException prints."""

    __cause__ = __context__ = exceptions = None
    __suppress_context__ = True
    stack = ()

    def __init__(self, text: str) -> None:
        self._text = text if text.endswith("\n") else text + "\n"

    def format(self, **_: Any) -> Iterator[str]:  # before 3.10
        yield self._text

    def format_exception_only(self, **_: Any) -> Iterator[str]:
        yield self._text


def _cut(text: str) -> str:
    """Returns the text as standard error has it. The middle of a long text is left out."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) > _TEXT:
        head, tail = data[: _TEXT // 4], data[-3 * (_TEXT // 4) :]
        head = head[: head.rfind(b"\n") + 1] or head + b"\n"
        tail = tail[tail.find(b"\n") + 1 :] or tail
        left_out = len(data) - len(head) - len(tail)
        data = head + f"  [{left_out} bytes left out]\n".encode() + tail
    return data.decode("utf-8", "ignore")
