"""Converts the values of a program to the types that travel. The section "Values" of docs/protocol.md has the table."""

from __future__ import annotations

import sys
from typing import Any, Callable, Dict, Sequence, Tuple

from ._arrays import Array, array_reduced, scalar_reduced
from ._errors import BadValue, shown, type_name
from ._times import Duration, Instant, time_reduced

MAX_BITS = 1 << 20
"""How many bits an integer may have."""

_FINAL = {type(None), bool, float, str, bytes, list, tuple, Array, Instant, Duration}


def reduced(value: Any) -> Any:
    """Returns the value as one of the exact types that travel.

    These are the types in _FINAL, int, dict with text keys, and datetime in UTC.
    """
    for _ in range(16):  # an Enum's value may be a model, whose dump may be anything
        type_ = type(value)
        if type_ in _FINAL:
            return value
        if type_ is int:
            check_int(value)
            return value
        if type_ is dict:
            return _with_text_keys(value)
        if type_ is getattr(sys.modules.get("datetime"), "datetime", None):
            return time_reduced(value)
        value = _simpler(value)
    raise BadValue(f"{type_name(type_)} stands for something else too often")


def check_int(value: int) -> None:
    """Raises `BadValue` if an integer is too large."""
    if value.bit_length() > MAX_BITS:
        raise BadValue(f"an integer of {value.bit_length()} bits; {MAX_BITS} are the most")


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
    if "pandas" in sys.modules and _is_missing(value):
        return None
    if "datetime" in sys.modules:
        time = time_reduced(value)
        if time is not value:
            return time
    for module, name in _AS_TEXT:
        if _is(value, module, name):
            return str(value)
    if _is(value, "numpy", "ndarray"):
        return array_reduced(value)
    if _is(value, "numpy", "generic"):
        return scalar_reduced(value)
    if not isinstance(value, type):
        fields = _fields(value)
        if fields is not None:
            return fields
    raise BadValue(_refusal(value))


_BARE: Sequence[Tuple[type, Callable[[Any], Any]]] = (
    (int, int.__index__),
    (float, float.__float__),
    (str, str.__str__),
)

_AS_TEXT = (("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID"), ("pathlib", "PurePath"))


def _is(value: Any, module: str, name: str) -> bool:
    """Reports whether a value is an instance of a class. It is False if the program has not imported the module."""
    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and isinstance(value, found)


def _is_missing(value: Any) -> bool:
    """Reports whether a value is one of those of pandas for a value that is missing."""
    pandas: Any = sys.modules["pandas"]
    return value is getattr(pandas, "NaT", _NO_PANDAS) or value is getattr(pandas, "NA", _NO_PANDAS)


_NO_PANDAS = object()  # the module is just being imported, or is another one of that name


def _fields(value: Any) -> Any:
    """Returns the fields of a dataclass or a model, or None for any other value."""
    type_ = type(value)
    if hasattr(type_, "__dataclass_fields__"):
        return {field.name: getattr(value, field.name) for field in sys.modules["dataclasses"].fields(value)}
    if hasattr(type_, "__attrs_attrs__"):
        return {attribute.name: getattr(value, attribute.name) for attribute in type_.__attrs_attrs__}
    if hasattr(type_, "__struct_fields__"):  # msgspec
        return {name: getattr(value, name) for name in type_.__struct_fields__}
    if hasattr(type_, "model_dump"):  # pydantic 2
        return value.model_dump()
    if hasattr(type_, "__fields__") and hasattr(type_, "dict"):  # pydantic 1
        return value.dict()
    return None


def _refusal(value: Any) -> str:
    refusal = f"a value of type {type_name(type(value))} can't be sent"
    for module, name, remedy in _REMEDIES:
        if _is(value, module, name):
            return f"{refusal}; send {remedy}"
    return f"{refusal}; turn it into numbers, text, bytes, lists and maps of them"


_ROWS_OR_COLUMNS = 'value.to_dict("records") for a list of maps, or value.to_dict("list") for a map of columns'
_REMEDIES = (  # a module, a class, and what to send; the first that fits
    ("pandas", "DataFrame", _ROWS_OR_COLUMNS),
    ("pandas", "Series", "value.to_list(), or value.to_dict() with its index"),
    ("pandas", "Index", "value.to_list()"),
    ("pandas", "Period", "str(value)"),
    ("pandas", "Interval", "[value.left, value.right]"),
    ("pandas.api.extensions", "ExtensionArray", "value.tolist()"),
    ("polars", "DataFrame", "value.to_dicts() for a list of maps"),
    ("polars", "LazyFrame", "value.collect().to_dicts()"),
    ("polars", "Series", "value.to_list()"),
    ("pyarrow", "Table", "value.to_pylist() for a list of maps, or value.to_pydict() for a map of columns"),
    ("pyarrow", "RecordBatch", "value.to_pylist() for a list of maps, or value.to_pydict() for a map of columns"),
    ("pyarrow", "Array", "value.to_pylist()"),
    ("pyarrow", "ChunkedArray", "value.to_pylist()"),
    ("pyarrow", "Scalar", "value.as_py()"),
    ("torch", "Tensor", "value.detach().cpu().numpy()"),
    ("tensorflow", "Tensor", "value.numpy()"),
    ("jax", "Array", "numpy.asarray(value)"),
    ("scipy.sparse", "spmatrix", "value.toarray()"),
    ("scipy.sparse", "sparray", "value.toarray()"),
    ("PIL.Image", "Image", "numpy.asarray(value), or the bytes that value.save() writes"),
    ("builtins", "complex", "[value.real, value.imag]"),
    ("io", "IOBase", "what value.read() returns"),
    ("builtins", "BaseException", "str(value), or raise it"),
    ("collections.abc", "Coroutine", "what await gives"),
    ("collections.abc", "Mapping", "dict(value)"),
    ("collections.abc", "AsyncIterator", "its items from an async generator"),
    ("collections.abc", "Iterable", "list(value)"),
)
