"""Copies of values for log records.

A logged object may change before the record is written, or have methods that fail.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, Callable, Dict, Iterator, List, Mapping, Tuple

from ._arrays import Array
from ._errors import clean, shown
from ._reduction import reduced
from ._values import LARGEST, SMALLEST

_DEPTH = 6
_ENTRIES = 100  # of a list or a map
_TEXT = 16 << 10  # characters, or bytes, of one value
_BUDGET = 64 << 10  # approximately, of all together


def snapshot(value: Any) -> Any:
    """Returns a copy of any value. Every codec can encode the copy.

    The copy is bounded in depth and size. This function never raises. Lists and maps are copied as they are now. Other
    values are converted as in a result, or become text if they can't travel.
    """
    return _copied(value, _DEPTH, [_BUDGET])


def _copied(value: Any, depth: int, left: List[int]) -> Any:
    try:
        type_ = type(value)
        if value is None or type_ is bool or type_ is float:
            left[0] -= 8
            return value
        for bases, copy in _COPIES:
            if issubclass(type_, bases):
                return copy(value, depth, left)
        return _reduced_copy(value, depth, left)
    except BaseException:  # raised by the value's own code, or the value changed meanwhile
        return _text(shown(value), left)


def _text(text: str, left: List[int], limit: int = _TEXT) -> str:
    text = clean(text, max(0, min(limit, left[0])))
    left[0] -= len(text)
    return text


def _integer(value: int, depth: int, left: List[int]) -> Any:
    value = int.__index__(value)
    left[0] -= 8
    return value if SMALLEST <= value <= LARGEST else shown(value)


def _bytes(value: bytes, depth: int, left: List[int]) -> Any:
    most = max(0, min(_TEXT, left[0]))
    view = memoryview(value)
    # A slice counts elements, and an element may have many bytes.
    kept = bytes(view.cast("B")[:most] if view.c_contiguous else view[:most].tobytes()[:most])
    left[0] -= len(kept)
    return kept


def _list(value: Any, depth: int, left: List[int]) -> Any:
    entries: Any = next(base for base in (list, tuple, set, frozenset) if issubclass(type(value), base))
    if not depth:
        return f"[{entries.__len__(value)} more]"
    copies = [_copied(entry, depth - 1, left) for entry in _few(entries.__iter__(value), left)]
    return copies + _rest(entries.__len__(value) - len(copies))


def _map(value: Any, depth: int, left: List[int]) -> Any:
    if not depth:
        return f"{{{dict.__len__(value)} more}}"
    entries = list(_few(iter(dict.items(value)), left))
    copies: Dict[str, Any] = {}
    for key, entry in entries:
        copies[_unlike(_key(key, left), copies)] = _copied(entry, depth - 1, left)
    for text in _rest(dict.__len__(value) - len(entries)):
        copies[_unlike("...", copies)] = text
    return copies


def _key(key: Any, left: List[int]) -> str:
    return _text(key if issubclass(type(key), str) else shown(key), left, 200)


def _unlike(key: str, others: Mapping[str, Any]) -> str:
    """Returns the key, with a number if another one has the same text. Long keys may be cut to the same text."""
    unlike, n = key, 2
    while unlike in others:
        unlike, n = f"{key} ({n})", n + 1
    return unlike


def _few(entries: Iterator[Any], left: List[int]) -> Iterator[Any]:
    for entry in islice(entries, _ENTRIES):
        if left[0] <= 0:
            return
        left[0] -= 8
        yield entry


def _rest(count: int) -> List[str]:
    return [f"({count} more)"] if count > 0 else []


def _reduced_copy(value: Any, depth: int, left: List[int]) -> Any:
    """Copies a value that can be converted to a simpler one, such as a dataclass."""
    simple = reduced(value)
    if type(simple) is Array:
        size = len(simple.data)
        if type(simple.data) is not bytes or size > min(_TEXT, left[0]):  # the data of a view may change
            return _text(shown(value), left)
        left[0] -= size
        return simple
    if simple is value or not depth:
        return simple if simple is value else _text(shown(value), left)
    return _copied(simple, depth - 1, left)


_COPIES: Tuple[Tuple[Any, Callable[[Any, int, List[int]], Any]], ...] = (
    (str, lambda value, depth, left: _text(value, left)),
    (int, _integer),
    (float, lambda value, depth, left: float.__float__(value)),
    ((bytes, bytearray, memoryview), _bytes),
    ((list, tuple, set, frozenset), _list),
    (dict, _map),
)
