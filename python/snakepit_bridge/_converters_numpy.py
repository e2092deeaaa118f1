"""The rules of NumPy's arrays and scalar types. NumPy is there, because an annotation names it."""

from __future__ import annotations

import math
import sys
from typing import Any, Mapping, Sequence

from ._misfit import Misfit
from ._rule import MaybeRule, Rule


def array(arguments: Sequence[Any], variables: Mapping[Any, Any]) -> Rule:
    """Returns the rule of an array.

    Args:
        arguments: Those of its annotation: the shape, and the dtype.
        variables: The types of its type variables.
    """
    numpy: Any = sys.modules["numpy"]
    inner = getattr(arguments[1], "__args__", ()) if len(arguments) == 2 else ()
    element = variables.get(inner[0], inner[0]) if inner else None
    if not isinstance(element, type) or not issubclass(element, numpy.generic) or element is numpy.generic:
        element = None
    dtype = numpy.dtype(element) if element is not None and not _is_abstract(numpy, element) else None

    def convert(value: Any) -> Any:
        found = _from_list(numpy, value, dtype) if type(value) is list else value
        if type(found) is not numpy.ndarray:
            raise Misfit("an array, or a list of numbers", value)
        if dtype is None:
            if element is None or issubclass(found.dtype.type, element):
                return found
            if type(value) is list and issubclass(numpy.float64, element) and found.dtype.kind in "iu":
                return found.astype("f8")
            raise Misfit("", reason=f"expected an array of {element.__name__}, got one of {found.dtype}")
        if found.dtype == dtype:
            return found
        if found.size and not numpy.can_cast(found.dtype, dtype, "same_kind"):
            raise Misfit("", reason=f"expected an array of {dtype}, got one of {found.dtype}")
        return _cast(numpy, found, dtype)

    return Rule(convert)


def _cast(numpy: Any, found: Any, dtype: Any) -> Any:
    """Returns an array with its numbers in another dtype.

    Raises:
        Misfit: A number is beyond the dtype's range. NumPy would make it another number, or infinite.
    """
    if not found.size or numpy.can_cast(found.dtype, dtype, "safe"):
        return found.astype(dtype)
    if dtype.kind in "iu" and found.dtype.kind in "iu":
        limits = numpy.iinfo(dtype)
        if int(found.min()) < limits.min or int(found.max()) > limits.max:
            raise Misfit("", reason=f"expected numbers from {limits.min} to {limits.max}")
    with numpy.errstate(over="ignore"):
        new = found.astype(dtype)
    if dtype.kind in "fc" and (numpy.isfinite(found) & ~numpy.isfinite(new)).any():
        raise Misfit("", reason=f"expected numbers within the range of {dtype}")
    return new


def _is_abstract(numpy: Any, element: Any) -> bool:
    return element in (numpy.number, numpy.integer, numpy.signedinteger, numpy.unsignedinteger) or element in (
        numpy.inexact,
        numpy.floating,
        numpy.complexfloating,
        numpy.flexible,
        numpy.character,
    )


def _from_list(numpy: Any, value: Any, dtype: Any) -> Any:
    """Returns the array of a list's elements, which are numbers, or text if the dtype is that of text."""
    try:
        found = numpy.asarray(value)
    except ValueError:  # lists of different lengths
        found = None
    except Warning:  # the same on older NumPy, in a program that turns warnings into errors
        found = None
    kinds = "biufc" if dtype is None or dtype.kind != "U" else "U"
    if found is None or (found.dtype.kind not in kinds and found.size):
        raise Misfit("", reason="expected a list of numbers, or lists of them that are equally long")
    if kinds == "U":
        if found.size and not {str}.issuperset(map(type, numpy.array(value, dtype=object).flat)):
            raise Misfit("", reason="expected a list of text")
        return found
    if dtype is not None and dtype.kind in "iu" and found.dtype.kind in "iu":
        return _cast(numpy, found, dtype)  # also from signed to unsigned
    return found


def scalar(cls: Any) -> MaybeRule:
    """Returns the rule of a scalar type. An abstract one demands nothing."""
    numpy: Any = sys.modules["numpy"]
    if _is_abstract(numpy, cls):
        return None

    def convert(value: Any) -> Any:
        type_ = type(value)
        if issubclass(cls, numpy.bool_):
            if type_ is bool:
                return cls(value)
            raise Misfit("true or false", value)
        if issubclass(cls, numpy.integer) and (type_ is int or (type_ is float and value.is_integer())):
            limits = numpy.iinfo(cls)
            if not limits.min <= value <= limits.max:
                raise Misfit(f"an integer from {limits.min} to {limits.max}", value)
            return cls(int(value))
        if issubclass(cls, numpy.inexact) and type_ in (int, float):
            try:
                with numpy.errstate(over="ignore"):
                    new = cls(value)
            except OverflowError:
                raise Misfit("a smaller number", value) from None
            if numpy.isinf(new) and value not in (math.inf, -math.inf):
                raise Misfit("a smaller number", value)
            return new
        if issubclass(cls, numpy.str_) and type_ is str:
            return cls(value)
        if issubclass(cls, (numpy.number, numpy.str_)):
            kinds = {numpy.integer: "an integer", numpy.number: "a number", numpy.str_: "text"}
            raise Misfit(next(text for kind, text in kinds.items() if issubclass(cls, kind)), value)
        return value

    return Rule(convert)
