"""Arrays, as they travel: NumPy arrays, and their substitute without NumPy."""

from __future__ import annotations

import re
import sys
from struct import unpack
from typing import Any, List, Sequence, Union

from ._errors import BadValue
from ._times import Duration


class Array:
    """An array in NumPy's form, for workers without NumPy. It can be sent.

    A received array is a numpy.ndarray. Without NumPy it is nested lists of numbers or booleans. It is an `Array` if it
    consists of neither, such as one of complex numbers.

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
_FORMATS = {  # of the module struct
    "|b1": "?",
    "|i1": "b",
    "<i2": "h",
    "<i4": "i",
    "<i8": "q",
    "|u1": "B",
    "<u2": "H",
    "<u4": "I",
    "<u8": "Q",
    "<f2": "e",
    "<f4": "f",
    "<f8": "d",
}
_EMPTY_ROWS = 4096
_numpy: Any = None  # the module; False if it can't be imported; None before the first attempt


def decoded_array(dtype: Any, shape: Any, data: Union[bytes, memoryview]) -> Any:
    """Returns a received array as a writable NumPy array with memory of its own.

    Without NumPy it returns nested lists, or an `Array` if the dtype is none of numbers or booleans.

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
        return _lists(shape, dtype, data) if dtype in _FORMATS else Array(dtype, shape, bytes(data))
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
        return _numpy.ndarray(tuple(shape), element, data).copy()  # NumPy takes huge pages for a large array
    except (ValueError, TypeError) as exc:
        raise exc if isinstance(exc, BadValue) else BadValue(f"an array that NumPy does not take: {exc}") from None


def _lists(shape: Sequence[int], dtype: str, data: Union[bytes, memoryview]) -> Any:
    """Returns the elements as nested lists, or as a single one if there are no dimensions."""
    if 0 in shape:
        why = too_empty(shape)
        if why:
            raise BadValue(why)
        return _empty(shape)
    form = _FORMATS[dtype]
    flat: List[Any] = list(unpack(f"<{len(data) // int(dtype[2:])}{form}", data))
    for length in reversed(shape[1:]):
        flat = [flat[start : start + length] for start in range(0, len(flat), length)]
    return flat if shape else flat[0]


def _empty(shape: Sequence[int]) -> List[Any]:
    return [_empty(shape[1:]) for _ in range(shape[0])] if shape[0] else []


def too_empty(shape: Sequence[int]) -> str:
    """Returns why an array without elements may not become lists, or "".

    The data of such an array has no bytes, so nothing else limits the lists. Those at each level count.
    """
    total, rows = 0, 1
    for length in shape[: shape.index(0)]:
        rows *= length
        total += rows
    if total <= _EMPTY_ROWS:
        return ""
    return f"an array of shape {list(shape)} has more than {_EMPTY_ROWS} rows without elements"


def array_reduced(value: Any) -> Any:
    """Converts a NumPy array.

    Returns:
        An `Array` of numbers or booleans. Text, bytes, times, durations and objects become nested lists.
    """
    numpy: Any = sys.modules["numpy"]
    masked = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    if masked is not None and isinstance(value, masked):
        raise BadValue("a masked array can't be sent; fill it first, as by value.filled(0)")
    kind = value.dtype.kind
    if kind in "USO":
        return value.tolist()
    if kind == "M":
        return _times_of(numpy, value)
    if kind == "m":
        return _durations(numpy, value)
    dtype = value.dtype.newbyteorder("<")
    if not _DTYPE.fullmatch(dtype.str):
        hint = "; send value.tolist(), or each field by itself" if kind == "V" else ""
        raise BadValue(f"a numpy array of dtype {value.dtype} can't be sent{hint}")
    flat = numpy.ascontiguousarray(value, dtype).reshape(-1)
    if flat.nbytes < 4096:
        return Array(dtype.str, value.shape, flat.tobytes())
    return Array(dtype.str, value.shape, memoryview(flat.view("u1")))


def scalar_reduced(value: Any) -> Any:
    """Converts a scalar of NumPy."""
    kind = value.dtype.kind
    if kind == "M":
        return _times_of(sys.modules["numpy"], value)
    if kind == "m":
        return _durations(sys.modules["numpy"], value)
    item = value.item() if kind in "biufc" else None
    if type(item) not in (bool, int, float, complex):
        raise BadValue(f"a numpy scalar of type {value.dtype} can't be sent")
    return item


def _times_of(numpy: Any, value: Any) -> Any:
    """Returns ISO text for each datetime64, which has no zone, and None for each NaT."""
    unit = numpy.datetime_data(value.dtype)[0]
    if unit in ("Y", "M", "W"):  # a whole date, or a whole time, is ISO text that every reader takes
        value = value.astype("M8[D]")
    elif unit in ("h", "m"):
        value = value.astype("M8[s]")
    texts = numpy.datetime_as_string(value)
    return _each(numpy, value, texts.tolist() if texts.ndim else str(texts), lambda text: text)


def _durations(numpy: Any, value: Any) -> Any:
    unit, count = numpy.datetime_data(value.dtype)
    if unit not in _NANOSECONDS and not numpy.isnat(value).all():
        raise BadValue(f"a numpy duration in units of {unit}, which are not of one length; send value.astype('int64')")
    numerator, denominator = _NANOSECONDS.get(unit, (1, 1))
    whole = numpy.asarray(value).astype("int64").tolist()
    return _each(numpy, value, whole, lambda number: Duration(number * count * numerator // denominator))


_NANOSECONDS = {
    "W": (604800 * 10**9, 1),
    "D": (86400 * 10**9, 1),
    "h": (3600 * 10**9, 1),
    "m": (60 * 10**9, 1),
    "s": (10**9, 1),
    "ms": (10**6, 1),
    "us": (10**3, 1),
    "ns": (1, 1),
    "ps": (1, 10**3),
    "fs": (1, 10**6),
    "as": (1, 10**9),
}


def _each(numpy: Any, value: Any, items: Any, convert: Any) -> Any:
    """Converts each of the nested items, or the single one. NaT becomes None."""
    missing = numpy.isnat(value).tolist()

    def converted(item: Any, absent: Any) -> Any:
        if type(item) is list:
            return [converted(*pair) for pair in zip(item, absent)]
        return None if absent else convert(item)

    return converted(items, missing)
