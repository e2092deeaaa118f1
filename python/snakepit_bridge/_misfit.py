"""The exception for a value that does not fit an annotation."""

from __future__ import annotations

from typing import Any, List, Mapping, Sequence

from ._errors import shown, shown_path, text_of, type_name

_SHOWN = 40  # characters of a value or key in a message
_BITS = 128  # of an integer whose digits are in a message


class Misfit(Exception):
    """A value does not fit an annotation.

    Attributes:
        expected: What would fit, such as "a number". It is empty if `reason` says what is wrong.
        value: The value, if `expected` is set.
        reason: What is wrong, in words.
        path: The keys and indexes that lead to the value, the innermost first. Each container appends its own.
    """

    def __init__(self, expected: str, value: Any = None, reason: str = "") -> None:
        super().__init__(expected or reason)
        self.expected = expected
        self.value = value
        self.reason = reason
        self.path: List[Any] = []

    def copy(self) -> Misfit:
        """Returns a misfit with a path of its own."""
        copy = Misfit(self.expected, self.value, self.reason)
        copy.path = self.path[:]
        copy.__cause__ = self.__cause__
        return copy

    def text(self) -> str:
        """Returns what is wrong, without the path."""
        return self.reason or f"expected {self.expected}, got {got(self.value)}"

    def message(self) -> str:
        """Returns the path and what is wrong, such as "orders[2].price: expected a number, got 'x'"."""
        return f"{shown_path(self.path[::-1])}: {self.text()}"


def refused(exc: Exception) -> Misfit:
    """Returns the misfit for an exception of the program's own code or of a library's validator."""
    text = text_of(exc)
    if type(exc) not in (ValueError, TypeError, AssertionError) or not text:
        text = type_name(type(exc)) + (f": {text}" if text else "")
    return Misfit("", reason=text)


def got(value: Any) -> str:
    """Describes a value that has arrived."""
    type_ = type(value)
    if type_ is int and value.bit_length() > _BITS:
        return f"an integer of {value.bit_length()} bits"
    if value is None or type_ in (bool, int, float):
        return shown(value, _SHOWN)
    if type_ is str:
        return shown(value, _SHOWN) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}..."
    if type_ is bytes:
        return f"{len(value)} bytes"
    names = {"list": "a list", "dict": "a map", "ndarray": "an array", "Array": "an array", "timedelta": "a duration"}
    if type_.__name__ == "datetime":
        return f"the time {text_of(value, _SHOWN)}"
    return names.get(type_.__name__) or f"a {type_name(type_)}"


def listed(names: Sequence[str], word: str = "and") -> str:
    """Returns names in quotes, such as "'a', 'b' and 'c'". Of many it returns the first."""
    quoted = [f"{name[:_SHOWN]!r}" for name in names[:8]]
    if len(names) > 8:
        return ", ".join(quoted) + f" {word} {len(names) - 8} more"
    return f" {word} ".join(filter(None, (", ".join(quoted[:-1]), *quoted[-1:])))


def unexpected(noun: str, given: Mapping[str, Any], known: Sequence[str]) -> str:
    """Returns what is wrong with the first name that is not known, and what may be meant, or "" if all are known."""
    first = next((name for name in given if name not in known), None)
    if first is None:
        return ""
    left = [name for name in known if name not in given]
    return f"unexpected {noun} {listed([first])}{_suggestion(first, left) if left else there_are(known)}"


def _suggestion(name: str, known: Sequence[str]) -> str:
    """Returns "; did you mean 'x'?" for the known names that are close to a name, or the known names if none is."""
    from ._stdlib import stdlib_first

    with stdlib_first():
        from difflib import get_close_matches
    near = get_close_matches(name.lower(), [one.lower() for one in known], 3)
    names = [one for low in near for one in known if one.lower() == low]
    if names:
        return f"; did you mean {listed(list(dict.fromkeys(names)), 'or')}?"
    return there_are(known)


def there_are(names: Sequence[str]) -> str:
    """Returns the end of a message with the names that there are."""
    return f"; there {'is' if len(names) == 1 else 'are'} {listed(names)}" if names else "; there are none"
