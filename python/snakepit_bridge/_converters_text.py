"""The rules of types that travel as text, and of timedelta."""

from __future__ import annotations

import re
import sys
from typing import Any, Callable

from ._misfit import Misfit
from ._rule import MaybeRule, Rule, made
from ._times import late_datetime

_DATE = r"(\d{4})-(\d\d)-(\d\d)"
_TIME = r"(\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?"
_ZONE = r"\s?([Zz]|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?"
_ISO_DATE = re.compile(_DATE, re.ASCII)
_ISO_TIME = re.compile(_TIME + _ZONE, re.ASCII)
_ISO_DATETIME = re.compile(f"{_DATE}(?:[Tt ]{_TIME}{_ZONE})?", re.ASCII)


def rule(cls: Any) -> MaybeRule:
    """Returns the rule of a class of datetime, decimal, fractions, uuid or pathlib."""
    convert = _CONVERTERS.get((cls.__module__, cls.__name__))
    if convert is not None and cls is getattr(sys.modules[cls.__module__], cls.__name__):
        return Rule(convert, [cls] if cls.__name__ in ("datetime", "timedelta") else ())
    path = getattr(sys.modules.get("pathlib"), "PurePath", None)
    return Rule(_path(cls)) if path is not None and issubclass(cls, path) else None


def _parsed(pattern: Any, text: Any, expected: str, make: Callable[..., Any]) -> Any:
    found = pattern.fullmatch(text) if type(text) is str else None
    if found is None:
        raise Misfit(expected, text)
    try:
        return make(*found.groups())
    except ValueError as exc:
        raise Misfit("", reason=f"expected {expected}, got {text!r}: {exc}") from None


def _zone(text: Any) -> Any:
    module = late_datetime()
    if not text:
        return None
    digits = re.sub(r"\D", "", text) + "0000"
    offset = module.timedelta(hours=int(digits[:2]), minutes=int(digits[2:4]), seconds=int(digits[4:6] or 0))
    if text in "Zz" or not offset:
        return module.timezone.utc
    return module.timezone(-offset if text[0] == "-" else offset)


def _microseconds(fraction: Any) -> int:
    return int((fraction or "")[:6].ljust(6, "0"))  # rounded towards the past, as a timestamp is


def _make_datetime(
    year: str, month: str, day: str, hour: Any, minute: Any, second: Any, fraction: Any, zone: Any
) -> Any:
    parts = (int(part or 0) for part in (year, month, day, hour, minute, second))
    return late_datetime().datetime(*parts, _microseconds(fraction), _zone(zone))


def _datetime(value: Any) -> Any:
    if type(value) is late_datetime().datetime:
        return value
    return _parsed(_ISO_DATETIME, value, "a datetime, or one as text in ISO form", _make_datetime)


def _date(value: Any) -> Any:
    module = late_datetime()
    found = value
    if type(value) is str and len(value) > len("2026-01-02"):
        found = _parsed(_ISO_DATETIME, value, "a date as text in ISO form", _make_datetime)
    if type(found) is module.datetime:
        if found.time() != module.time():
            raise Misfit("a date without a time", value)
        return found.date()
    return _parsed(_ISO_DATE, value, "a date as text in ISO form", lambda *parts: module.date(*map(int, parts)))


def _make_time(hour: str, minute: str, second: Any, fraction: Any, zone: Any) -> Any:
    return late_datetime().time(int(hour), int(minute), int(second or 0), _microseconds(fraction), _zone(zone))


def _time(value: Any) -> Any:
    return _parsed(_ISO_TIME, value, "a time of day as text in ISO form", _make_time)


def _timedelta(value: Any) -> Any:
    module = late_datetime()
    if type(value) is module.timedelta:
        return value
    if type(value) not in (int, float):
        raise Misfit("a duration: seconds as a number", value)
    try:
        return module.timedelta(seconds=value)
    except (OverflowError, ValueError):
        raise Misfit("a duration within a million years: seconds as a number", value) from None


def _decimal(value: Any) -> Any:
    decimal: Any = sys.modules["decimal"]
    if type(value) is int:
        return decimal.Decimal(value)
    try:
        if type(value) in (str, float):
            # The program's own context may turn bad text into NaN.
            return decimal.Decimal(_decimal_text(value), decimal.Context(traps=[decimal.InvalidOperation]))
    except decimal.InvalidOperation:
        pass
    raise Misfit("a number, or one as text", value)


def _decimal_text(value: Any) -> str:
    return repr(value) if type(value) is float else value


def _fraction(value: Any) -> Any:
    if type(value) is int:
        return sys.modules["fractions"].Fraction(value)
    text = _decimal_text(value) if type(value) in (str, float) else ""
    exponent = re.search(r"[eE][+-]?(\d+)", text)
    try:
        if text and (exponent is None or int(exponent[1]) < 10_000):  # the integers of a fraction have all digits
            return sys.modules["fractions"].Fraction(text)
    except (ValueError, ZeroDivisionError):
        pass
    raise Misfit("a fraction as text such as '3/4', or a number", value)


def _uuid(value: Any) -> Any:
    try:
        if type(value) is str:
            return sys.modules["uuid"].UUID(value)
    except ValueError:
        pass
    raise Misfit("a UUID as text", value)


def _path(cls: Any) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if type(value) is not str:
            raise Misfit("a path as text", value)
        return made(cls, (value,), {})  # the class may be the program's

    return convert


_CONVERTERS = {
    ("datetime", "datetime"): _datetime,
    ("datetime", "date"): _date,
    ("datetime", "time"): _time,
    ("datetime", "timedelta"): _timedelta,
    ("decimal", "Decimal"): _decimal,
    ("fractions", "Fraction"): _fraction,
    ("uuid", "UUID"): _uuid,
}
