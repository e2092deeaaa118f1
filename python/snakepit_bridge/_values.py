"""How all codecs take values apart: how deep values nest, and how an error names a path. `_reduction` has the types.

A codec hands a value to the C code of its library if
`is_plain` is true for it. Otherwise `walk` takes the value apart.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Sequence, Set, Tuple

from ._errors import BadValue, shown_path, text_of, type_name
from ._reduction import reduced

MAX_DEPTH = 500
"""How many lists and maps may be nested in one value."""

SMALLEST, LARGEST = -(2**63), 2**64 - 1
"""The range of integers of 64 bits. Larger ones have a notation of their own."""

CONTAINERS = {dict, list, tuple}
"""The types that `is_plain` takes."""

_AT_ONCE = 16  # levels that `walk` hands to a library in one piece; at each level of a deeper value it checks so many


def is_plain(value: Any, scalars: Set[type], binary: int, levels: int) -> bool:
    """Reports whether the library of a codec encodes a list, tuple or dict correctly by itself.

    Args:
        value: The container. Nothing in it may be of a subclass of a plain type.
        scalars: The types that are plain with any value. Integers of 64 bits are plain even if int is not among them.
        binary: The length up to which bytes are plain, or -1 for none.
        levels: How deep the container may nest. A deeper one is not plain.
    """
    type_ = type(value)
    if not levels:
        return False
    if type_ is dict:
        for key in value:
            if type(key) is not str:
                return False
        if len(value) == 1 and key[:1] == "$":
            return False
        value = value.values()
    elif len(value) > 32 and scalars.issuperset(map(type, value)):  # this check runs in C
        return True
    for item in value:
        type_ = type(item)
        if type_ in scalars:
            continue
        if type_ is int:
            if SMALLEST <= item <= LARGEST:
                continue
            return False
        if type_ in CONTAINERS:
            if is_plain(item, scalars, binary, levels - 1):
                continue
            return False
        if type_ is bytes and len(item) <= binary:
            continue
        return False
    return True


class Writer:
    """Writes one encoding for `walk`. Its arguments are valid, except for text, which the writer has to check.

    Attributes:
        scalars: The types that `write_plain` takes, besides integers of 64 bits.
        binary: The length up to which `write_plain` takes bytes, or -1 for none.
    """

    scalars: Set[type]
    binary: int

    def write_plain(self, value: Any) -> None:
        """Writes a plain value.

        Raises:
            ValueError or OverflowError: It is not plain after all. Nothing was written, and `walk` takes it apart.
        """
        raise NotImplementedError

    def write_special(self, value: Any) -> None:
        """Writes a value that has a notation of its own.

        It is bytes, an exact datetime in UTC, an `Instant`, a `Duration`, an `Array`, an integer beyond 64 bits, or a
        float that `write_plain` did not take.
        """
        raise NotImplementedError

    def begin_list(self, length: int) -> None:
        """Begins a list. So many values and `end` follow."""
        raise NotImplementedError

    def begin_map(self, value: Dict[str, Any]) -> None:
        """Begins a map. A `key` and a value for each entry, and then `end`, follow."""
        raise NotImplementedError

    def key(self, key: str) -> None:
        """Writes a key. Raises UnicodeEncodeError if the key has a lone surrogate."""
        raise NotImplementedError

    def end(self) -> None:
        """Ends the innermost list or map."""
        raise NotImplementedError


def walk(value: Any, writer: Writer) -> None:
    """Writes any value by the rules. It does not recurse, so a deep value can't overflow the stack.

    Raises:
        BadValue: The value can't travel.
    """
    opened: List[Iterator[Tuple[Any, Any]]] = []  # the remaining entries of each list or map around the value
    path: List[Any] = []  # the current key or index in each of them
    try:
        while True:
            value = reduced(value)
            if not _put_whole(value, writer, MAX_DEPTH - len(opened)):
                type_ = type(value)
                if type_ in CONTAINERS:
                    if len(opened) == MAX_DEPTH:
                        raise BadValue(f"nested deeper than {MAX_DEPTH} levels, or a cycle")
                    if type_ is dict:
                        writer.begin_map(value)
                        opened.append(iter(value.items()))
                    else:
                        value = tuple(value)  # a list may grow meanwhile
                        writer.begin_list(len(value))
                        opened.append(enumerate(value))
                    path.append(None)
                elif type_ is str:
                    raise BadValue("text with a lone surrogate, which is not valid UTF-8")
                else:
                    writer.write_special(value)
            while opened:
                entry = next(opened[-1], None)
                if entry is not None:
                    path[-1], value = entry
                    if type(path[-1]) is str:
                        writer.key(path[-1])
                    break
                opened.pop()
                path.pop()
                writer.end()
            else:
                return
    except UnicodeEncodeError:
        raise BadValue(f"{_shown(path)}: a key with a lone surrogate, which is not valid UTF-8") from None
    except BadValue as exc:
        raise BadValue(f"{_shown(path)}: {exc}") from exc.__cause__
    except Exception as exc:  # raised by the value's own code, or the value changed while it was read
        raise BadValue(f"{_shown(path)}: {type_name(type(exc)).rpartition('.')[2]}: {text_of(exc)}") from exc


def _put_whole(value: Any, writer: Writer, levels: int) -> bool:
    type_ = type(value)
    try:
        if type_ in CONTAINERS:
            if not is_plain(value, writer.scalars, writer.binary, min(levels, _AT_ONCE)):
                return False
        elif type_ is int:
            if not SMALLEST <= value <= LARGEST:
                return False
        elif type_ not in writer.scalars and not (type_ is bytes and len(value) <= writer.binary):
            return False
        writer.write_plain(value)
    except (ValueError, OverflowError, RecursionError):
        return False
    return True


def _shown(path: Sequence[Any]) -> str:
    return shown_path(["value", *(step for step in path if step is not None)])
