"""Instants and durations, as they travel."""

from __future__ import annotations

import sys
from typing import Any

from ._errors import BadValue
from ._stdlib import stdlib_first


class Instant:
    """An instant that a datetime can't express exactly. It is only sent.

    Attributes:
        seconds: Unix seconds.
        nanoseconds: The nanoseconds after them, below 10**9.
    """

    __slots__ = ("nanoseconds", "seconds")

    def __init__(self, seconds: int, nanoseconds: int) -> None:
        self.seconds = seconds
        self.nanoseconds = nanoseconds


class Duration:
    """A duration in nanoseconds. It is only sent.

    Attributes:
        nanoseconds: An integer that fits 64 bits.
    """

    __slots__ = ("nanoseconds",)

    def __init__(self, nanoseconds: int) -> None:
        if not -(2**63) <= nanoseconds < 2**63:
            raise BadValue("a duration of more than 292 years can't be sent; send its seconds, as by total_seconds()")
        self.nanoseconds = nanoseconds


def late_datetime() -> Any:
    """Returns the module datetime. A worker that receives no times does not import it."""
    if "datetime" in sys.modules:
        return sys.modules["datetime"]
    with stdlib_first():
        import datetime
    return datetime


def timedelta(nanoseconds: int) -> Any:
    """Returns a received duration. It has microseconds, rounded down."""
    return late_datetime().timedelta(microseconds=nanoseconds // 1000)


def time_reduced(value: Any) -> Any:
    """Converts an object of the module datetime or of a subclass.

    Returns:
        A datetime in UTC, or an `Instant`, for a datetime with a zone. A `Duration` for a timedelta. ISO text for a
        date, a time or a datetime without a zone. Any other value is returned as it is.
    """
    module: Any = sys.modules["datetime"]
    if isinstance(value, module.datetime):
        return _instant(module, value) if value.utcoffset() is not None else value.isoformat()
    if isinstance(value, (module.date, module.time)):
        return value.isoformat()
    if isinstance(value, module.timedelta):
        precise = getattr(value, "value", None)  # pandas has nanoseconds
        if type(precise) is not int:
            precise = ((value.days * 86400 + value.seconds) * 10**6 + value.microseconds) * 1000
        return Duration(precise)
    return value


def _instant(module: Any, value: Any) -> Any:
    utc = module.timezone.utc
    if type(value) is module.datetime and value.tzinfo is utc:
        return value
    if type(getattr(value, "nanosecond", None)) is int and value.nanosecond:  # of pandas
        return Instant(value.value // 10**9, value.value % 10**9)
    value = value.astimezone(utc)
    # An exact datetime, even if the value is of a subclass.
    return module.datetime(
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, tzinfo=utc
    )
