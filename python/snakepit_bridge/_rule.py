"""The rule that an annotation makes for a value."""

from __future__ import annotations

import sys
from typing import Any, Callable, FrozenSet, List, Mapping, Optional, Sequence, Tuple

from ._arrays import too_empty
from ._interrupt import enter
from ._misfit import Misfit, refused


class Rule:
    """What an annotation demands of a value.

    Attributes:
        exact: A value of one of these types passes as it is. `convert` need not be called.
        convert: Returns the value that the handler gets. Raises `Misfit`.
    """

    __slots__ = ("convert", "exact")

    def __init__(self, convert: Callable[[Any], Any], exact: Sequence[type] = ()) -> None:
        self.convert = convert
        self.exact: FrozenSet[type] = frozenset(exact)


Check = Tuple[str, FrozenSet[type], Callable[[Any], Any]]
"""The rule of one name."""

MaybeRule = Optional[Rule]
"""None stands for an annotation that demands nothing."""


def optional(rule: MaybeRule) -> MaybeRule:
    """Returns the rule that also accepts None."""
    if rule is None:
        return None
    convert = rule.convert
    return Rule(lambda value: None if value is None else convert(value), [*rule.exact, type(None)])


def converted(rule: MaybeRule, value: Any, step: Any) -> Any:
    """Converts a part of a value. The step is the part's key or index."""
    if rule is None or type(value) in rule.exact:
        return value
    try:
        return rule.convert(value)
    except Misfit as exc:
        exc.path.append(step)
        raise


def made(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Returns what a function of the program or of a library makes of a value. It may be interrupted, as a handler.

    Raises:
        Misfit: The function raised an exception.
    """
    try:
        return enter(function, args, kwargs)
    except Exception as exc:
        raise refused(exc) from exc


def as_list(value: Any) -> List[Any]:
    """Returns a list, or the list of an array's elements. None, as which a nil slice of Go travels, is an empty list.

    Raises:
        Misfit: It is none of them.
    """
    if type(value) is list:
        return value
    if value is None:
        return []
    if type(value) is getattr(sys.modules.get("numpy"), "ndarray", None):
        why = "" if value.size else too_empty(value.shape)
        if why:
            raise Misfit("", reason=why)
        items = value.tolist()
        if type(items) is list:
            return items
    raise Misfit("a list", value)
