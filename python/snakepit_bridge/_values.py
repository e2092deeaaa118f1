"""The rules for values, shared by all codecs: how each type travels, how deep values nest, how an error names a path.

The rules are those of the section "Values" of docs/protocol.md. A codec hands a value to the C code of its library if
`is_plain` is true for it. Otherwise `walk` takes the value apart.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Callable, Dict, Iterator, List, Sequence, Set, Tuple, Union

from ._errors import BadValue, shown, text_of, type_name
from ._stdlib import stdlib_first

MAX_DEPTH = 500
"""How many lists and maps may be nested in one value."""

SMALLEST, LARGEST = -(2**63), 2**64 - 1
"""The range of integers."""

CONTAINERS = {dict, list, tuple}
"""The types that `is_plain` takes."""

_AT_ONCE = 16  # levels that `walk` hands to a library in one piece; at each level of a deeper value it checks so many
_SHOWN = 40  # characters of a key in a path


class Array:
    """An array of numbers. Without NumPy, a received array is one. It may be sent, too.

    Attributes:
        dtype: NumPy's name of the element type in little endian, such as "<f8".
        shape: The length of each dimension.
        data: The elements in C order.
    """

    __slots__ = ("data", "dtype", "shape")

    def __init__(self, dtype: str, shape: Sequence[int], data: Union[bytes, memoryview]) -> None:
        check_array(dtype, shape, len(data))
        self.dtype = dtype
        self.shape = tuple(shape)
        self.data = data

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array):
            return NotImplemented
        return self.dtype == other.dtype and self.shape == other.shape and self.data == other.data

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Array({self.dtype!r}, {self.shape!r}, {len(self.data)} bytes)"


Array.__module__ = "snakepit_bridge"


def check_array(dtype: Any, shape: Any, size: int) -> None:
    """Raises `BadValue` unless the data has one element for each place of the shape. Its size is in bytes."""
    if type(dtype) is not str or not dtype:
        raise BadValue("an array whose dtype is not text such as '<f8'")
    if type(shape) not in (list, tuple) or len(shape) > 64:
        raise BadValue("an array whose shape is not a list of up to 64 integers")
    places = 1
    for length in shape:
        if type(length) is not int or length < 0:
            raise BadValue(f"an array with {length!r:.40} in its shape")
        places *= length
    width = (
        int(re.sub(r"\D", "", dtype[:12].partition("[")[0])) * (4 if dtype[1] == "U" else 1)
        if _DTYPE.fullmatch(dtype)
        else 0
    )
    if width or not places:
        fits = size == places * width
    else:  # the dtype does not say how large an element is
        fits = size >= places and size % places == 0
    if not fits:
        raise BadValue(
            f"an array of dtype {dtype:.40} and shape {list(shape)} has {size} bytes of data, which do not fit"
        )


_DTYPE = re.compile(r"\|[b?iu]1|<[iu][248]|<f[248]|<c(?:8|16)|\|S[1-9]\d*|<U[1-9]\d*|<[mM]8(?:\[\w{1,16}\])?")
_numpy: Any = None  # the module; False if it can't be imported; None before the first attempt


def decoded_array(dtype: Any, shape: Any, data: bytes) -> Any:
    """Returns a received array as a writable NumPy array with memory of its own, or as an `Array` without NumPy.

    Raises:
        BadValue: The dtype, the shape and the data do not fit together, or the dtype is not supported.
    """
    global _numpy
    check_array(dtype, shape, len(data))
    if _numpy is None:
        try:
            import numpy

            _numpy = numpy
        except ImportError:
            _numpy = False
    if not _numpy:
        return Array(dtype, shape, data)
    if not _DTYPE.fullmatch(dtype):
        raise BadValue(f"an array of dtype {dtype!r:.40}, which is none of numbers, text or times in little endian")
    try:
        element = _numpy.dtype(dtype)
        places = 1
        for length in shape:
            places *= length
        if places * element.itemsize != len(data):
            raise BadValue(
                f"an array of dtype {dtype} and shape {list(shape)} has {len(data)} bytes of data, which do not fit"
            )
        return _numpy.ndarray(tuple(shape), element, bytearray(data))
    except (ValueError, TypeError) as exc:
        raise exc if isinstance(exc, BadValue) else BadValue(f"an array that NumPy does not take: {exc}") from None


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
        """Writes bytes, an exact datetime in UTC, an `Array`, or a float that `write_plain` did not take."""
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
        elif type_ is not int and type_ not in writer.scalars and not (type_ is bytes and len(value) <= writer.binary):
            return False
        writer.write_plain(value)
    except (ValueError, OverflowError, RecursionError):
        return False
    return True


def _shown(path: List[Any]) -> str:
    text = "value"
    for step in path:
        if type(step) is int:
            text += f"[{step}]"
        elif step is None:
            continue
        elif len(step) <= _SHOWN and re.fullmatch(r"\w+", step, re.ASCII):
            text += "." + step
        else:
            cut = step if len(step) <= _SHOWN else step[:_SHOWN] + "..."
            text += f"[{cut!a}]"
    return text if len(text) <= 160 else text[:80] + "..." + text[-80:]


_FINAL = {type(None), bool, float, str, bytes, list, tuple, Array}


def reduced(value: Any) -> Any:
    """Returns the value as one of the exact types that travel.

    These are the types in _FINAL, int, dict with text keys, and datetime in UTC.
    """
    for _ in range(16):  # an Enum's value may be a model, whose dump may be anything
        type_ = type(value)
        if type_ in _FINAL:
            return value
        if type_ is int:
            if SMALLEST <= value <= LARGEST:
                return value
            raise BadValue(f"an integer of {value.bit_length()} bits; those from -2^63 to 2^64-1 can be sent")
        if type_ is dict:
            return _with_text_keys(value)
        if type_ is getattr(sys.modules.get("datetime"), "datetime", None):
            return _in_utc(value)
        value = _simpler(value)
    raise BadValue(f"{type_name(type_)} stands for something else too often")


def _with_text_keys(value: Dict[Any, Any]) -> Dict[str, Any]:
    exact = True
    for key in value:
        if type(key) is not str:
            if not isinstance(key, str):
                hint = "make it text, as by str(), or send a list of pairs"
                raise BadValue(
                    f"a map with the key {shown(key, 40)} ({type_name(type(key))}), which is not text; {hint}"
                )
            exact = False
    if exact:
        return value
    texts = {str.__str__(key): item for key, item in value.items()}
    if len(texts) != len(value):
        raise BadValue("a map with two keys of the same text")
    return texts


def _simpler(value: Any) -> Any:
    """Converts a value whose type does not travel to one that is closer to a type that does."""
    type_ = type(value)
    if _is(value, "enum", "Enum"):
        return value.value
    for base, bare in _BARE:
        if isinstance(value, base):
            return bare(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, dict):
        return dict(value)
    if _is(value, "datetime", "datetime"):
        return _in_utc(value)
    if _is(value, "decimal", "Decimal") or _is(value, "uuid", "UUID") or _is(value, "pathlib", "PurePath"):
        return str(value)
    if _is(value, "numpy", "ndarray"):
        return _from_numpy(value)
    if _is(value, "numpy", "generic"):
        item = value.item() if value.dtype.kind in "biuf" else None
        if type(item) not in (bool, int, float):
            raise BadValue(f"a numpy scalar of type {value.dtype} can't be sent")
        return item
    if not isinstance(value, type):
        if hasattr(type_, "__dataclass_fields__"):
            return {field.name: getattr(value, field.name) for field in sys.modules["dataclasses"].fields(value)}
        if hasattr(type_, "model_dump"):  # pydantic 2
            return value.model_dump()
        if hasattr(type_, "__fields__") and hasattr(type_, "dict"):  # pydantic 1
            return value.dict()
    raise BadValue(
        f"a value of type {type_name(type_)} can't be sent; turn it into numbers, text, bytes, lists and maps of them"
    )


_BARE: Sequence[Tuple[type, Callable[[Any], Any]]] = (
    (int, int.__index__),
    (float, float.__float__),
    (str, str.__str__),
)


def _is(value: Any, module: str, name: str) -> bool:
    """Reports whether a value is an instance of a class. There is none if the module has not been imported."""
    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and isinstance(value, found)


def _in_utc(value: Any) -> Any:
    module: Any = sys.modules["datetime"]
    utc = module.timezone.utc
    if type(value) is module.datetime and value.tzinfo is utc:
        return value
    if value.utcoffset() is None:
        raise BadValue("a datetime without a zone, which names no instant; give it a tzinfo")
    value = value.astimezone(utc)
    # An exact datetime, even if the value is of a subclass.
    return module.datetime(
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, tzinfo=utc
    )


def _from_numpy(value: Any) -> Array:
    numpy: Any = sys.modules["numpy"]
    if _is(value, "numpy.ma", "MaskedArray"):
        raise BadValue("a masked array can't be sent; fill it first")
    dtype = value.dtype.newbyteorder("<")
    if not _DTYPE.fullmatch(dtype.str):
        raise BadValue(f"a numpy array of dtype {value.dtype} can't be sent")
    flat = numpy.ascontiguousarray(value, dtype).reshape(-1)
    if flat.nbytes < 4096:
        return Array(dtype.str, value.shape, flat.tobytes())
    return Array(dtype.str, value.shape, memoryview(flat.view("u1")))


def late_datetime() -> Any:
    """Returns the module datetime. A worker that receives no timestamps does not import it."""
    if "datetime" in sys.modules:
        return sys.modules["datetime"]
    with stdlib_first():
        import datetime
    return datetime
