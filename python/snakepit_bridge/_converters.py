"""The rules of simple types, containers, unions, literals and enums."""

from __future__ import annotations

import collections.abc
import typing
from typing import TYPE_CHECKING, Any, Callable, Dict, FrozenSet, List, Optional, Sequence, Tuple

from ._annotations import Scope
from ._errors import shown
from ._misfit import Misfit, got
from ._rule import MaybeRule, Rule, as_list, converted, made
from ._unpatched import get_ident

if TYPE_CHECKING:
    from ._compiler import Compiler

_NONE = type(None)


def unchanged(value: Any) -> Any:
    return value


# The functions below return converters, or are converters.


def _only(expected: str) -> Callable[[Any], Any]:
    """Returns the converter of a rule that only accepts its exact types."""

    def convert(value: Any) -> Any:
        raise Misfit(expected, value)

    return convert


def _of_types(expected: str, *types: type) -> Rule:
    refuse = _only(expected)
    return Rule(lambda value: value if type(value) in types else refuse(value), types)


def _integer(value: Any) -> int:
    type_ = type(value)
    if type_ is int:
        return value  # type: ignore[no-any-return]
    if type_ is float and value.is_integer():
        return int(value)
    raise Misfit("an integer", value)


def _float(value: Any) -> float:
    type_ = type(value)
    if type_ is float:
        return value  # type: ignore[no-any-return]
    if type_ is not int:
        raise Misfit("a number", value)
    try:
        return float(value)
    except OverflowError:
        raise Misfit("", reason=f"an integer of {value.bit_length()} bits is too large for a float") from None


def _bytes_as(type_: type) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if type(value) is not bytes:
            raise Misfit("bytes", value)
        return type_(value)

    return convert


SIMPLE: Dict[Any, MaybeRule] = {
    object: None,
    _NONE: _of_types("None", _NONE),
    bool: _of_types("true or false", bool),
    int: Rule(_integer, [int]),
    float: Rule(_float, [float]),
    str: _of_types("text", str),
    bytes: _of_types("bytes", bytes),
    bytearray: Rule(_bytes_as(bytearray)),
    memoryview: Rule(_bytes_as(memoryview)),
}


def list_of(item: MaybeRule) -> Callable[[Any], List[Any]]:
    if item is None:
        return as_list
    exact, change = item.exact, item.convert

    def convert(value: Any) -> List[Any]:
        items = as_list(value)
        if exact and exact.issuperset(map(type, items)):  # this check runs in C
            return items
        changed: Optional[List[Any]] = None  # a member of a union that fails must leave the value as it was
        index = 0
        try:
            for index, one in enumerate(items):
                if type(one) not in exact:
                    new = change(one)
                    if new is not one:
                        if changed is None:
                            changed = items[:]
                        changed[index] = new
        except Misfit as exc:
            exc.path.append(index)
            raise
        return items if changed is None else changed

    return convert


def set_of(type_: Callable[[List[Any]], Any]) -> Callable[[MaybeRule], Callable[[Any], Any]]:
    def make(item: MaybeRule) -> Callable[[Any], Any]:
        items_of = list_of(item)

        def convert(value: Any) -> Any:
            items = items_of(value)
            if any(type(one) in (list, dict) for one in items):
                raise Misfit("", reason="a list or map can't be an element of a set")
            return made(type_, (items,), {})

        return convert

    return make


def tuple_of(items: Optional[Sequence[MaybeRule]], each: MaybeRule) -> Callable[[Any], Tuple[Any, ...]]:
    """Returns the converter of tuples: with a rule for each place, or with one for all."""
    if items is None:
        items_of = list_of(each)
        return lambda value: tuple(items_of(value))
    rules = tuple(items)

    def convert(value: Any) -> Tuple[Any, ...]:
        found = as_list(value)
        if len(found) != len(rules):
            raise Misfit("", reason=f"expected a list of {len(rules)}, got one of {len(found)}")
        return tuple([converted(rule, one, index) for index, (rule, one) in enumerate(zip(rules, found))])

    return convert


def map_of(key: Optional[Callable[[str], Any]], item: MaybeRule) -> Callable[[Any], Dict[Any, Any]]:
    exact = item.exact if item is not None else frozenset()

    def convert(value: Any) -> Dict[Any, Any]:
        if value is None:  # a nil map of Go
            return {}
        if type(value) is not dict:
            raise Misfit("a map", value)
        result = value
        if item is not None and not (exact and exact.issuperset(map(type, value.values()))):
            changed = {name: converted(item, one, name) for name, one in value.items()}
            if any(changed[name] is not one for name, one in value.items()):
                result = changed
        if key is None:
            return result
        keyed: Dict[Any, Any] = {}
        for name, one in result.items():
            count = len(keyed)
            try:
                made(keyed.setdefault, (key(name), one), {})
            except Misfit as exc:
                raise Misfit("", reason=f"the key {got(name)}: {exc.text()}") from exc.__cause__
            if len(keyed) == count:
                raise Misfit("", reason=f"the key {got(name)}: there are two such keys")
        return keyed

    return convert


def key_of(rule: Rule) -> Callable[[str], Any]:
    """Returns the converter of keys, which arrive as text.

    If the rule does not accept the text, it gets the number or the bool that the text stands for.
    """

    def convert(text: str) -> Any:
        try:
            return rule.convert(text)
        except Misfit as exc:
            try:
                return rule.convert(_number(text))
            except (ValueError, Misfit):
                raise exc from exc.__cause__

    return convert


def _number(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    if not text.isascii() or "_" in text or text != text.strip():
        raise ValueError(text)
    return float(text) if text.strip("+-0123456789") else int(text)


CONTAINERS: Dict[Any, Any] = {
    list: list_of,
    set: set_of(set),
    frozenset: set_of(frozenset),
    dict: map_of,
    collections.abc.Sequence: list_of,
    collections.abc.MutableSequence: list_of,
    collections.abc.Iterable: list_of,
    collections.abc.Collection: list_of,
    collections.abc.Set: set_of(set),
    collections.abc.MutableSet: set_of(set),
    collections.abc.Mapping: map_of,
    collections.abc.MutableMapping: map_of,
}
for _name in ("List", "Set", "FrozenSet", "Dict"):
    CONTAINERS[getattr(typing, _name)] = CONTAINERS[getattr(typing, _name).__origin__]
for _name in ("Sequence", "MutableSequence", "Iterable", "Collection", "Mapping", "MutableMapping", "MutableSet"):
    CONTAINERS[getattr(typing, _name)] = CONTAINERS[getattr(collections.abc, _name)]
CONTAINERS[typing.AbstractSet] = set_of(set)


def first_of(members: Sequence[Callable[[Any], Any]], exact: FrozenSet[type]) -> Callable[[Any], Any]:
    """Returns the converter of a union. A member that takes the value as it is wins, else the first that converts.

    If classes of a union refer to the union, each member converts the inner values once more. So the outermost union of
    a conversion remembers what the unions in it made of each value. Without that the time doubles with each level.
    """

    def convert(value: Any) -> Any:
        if type(value) in exact:
            return value
        thread = get_ident()
        outcomes = _outcomes.get(thread)
        is_outermost = outcomes is None
        if outcomes is None:
            outcomes = _outcomes[thread] = {}
        key = (convert, id(value))
        try:
            if key not in outcomes:
                outcomes[key] = (value, _chosen(members, value), None)  # the value stays alive, so its id stays its own
            _, new, misfit = outcomes[key]
        except Misfit as exc:
            outcomes[key] = (value, None, exc.copy())
            raise
        finally:
            if is_outermost:
                del _outcomes[thread]
        if misfit is not None:
            raise misfit.copy() from misfit.__cause__
        return new

    return convert


def _chosen(members: Sequence[Callable[[Any], Any]], value: Any) -> Any:
    found: List[Any] = []
    errors: List[Misfit] = []
    for member in members:
        try:
            new = member(value)
        except Misfit as exc:
            errors.append(exc)
            continue
        if new is value:
            return value
        found.append(new)
    if found:
        return found[0]
    deepest = max(errors, key=lambda exc: (len(exc.path), bool(exc.reason)))
    if deepest.reason or deepest.path:  # a member of the right kind, with something wrong inside
        raise deepest
    wanted = list(dict.fromkeys(exc.expected for exc in errors))
    raise Misfit(" or ".join(filter(None, (", ".join(wanted[:-1]), wanted[-1]))), value)


_outcomes: Dict[int, Dict[Any, Any]] = {}  # of the unions in the conversion that runs, by thread


def literal(values: Sequence[Any]) -> Rule:
    def convert(value: Any) -> Any:
        for one in values:
            if _same(value, getattr(one, "value", one)):
                return value if type(one) is type(value) else one
        texts = [got(getattr(one, "value", one)) for one in values]
        raise Misfit(f"one of {', '.join(texts)}" if len(texts) > 1 else texts[0], value)

    return Rule(convert)


def _same(value: Any, other: Any) -> bool:
    """Reports whether values are equal, and neither is a number if the other one is a bool.

    Values of the program's types, such as arrays, are never compared.
    """
    if (type(value) is bool) != (type(other) is bool):
        return False
    return type(value) in _COMPARED and type(other) in _COMPARED and bool(value == other)


_COMPARED = {_NONE, bool, int, float, str, bytes}


def enum(cls: Any, compiler: Compiler) -> Rule:
    members = list(cls)
    types = {type(member.value) for member in members}
    scope = Scope({}, {})
    rules = [rule for rule in (compiler.part(type_, scope, {}) for type_ in types if type_ not in SIMPLE) if rule]

    def convert(value: Any) -> Any:
        for member in cls.__members__.values():
            if _same(value, member.value):
                return member
        for rule in rules:  # a value such as a Decimal or a tuple travels as another type
            try:
                return made(cls, (rule.convert(value),), {})
            except Misfit:
                continue
        if type(value) is not bool:  # True is 1 for an Enum
            try:
                return made(cls, (value,), {})  # the class may know more values, as a Flag does
            except Misfit as exc:
                if type(exc.__cause__) is not ValueError:
                    raise
        values = [shown(member.value, 40) for member in members[:8]] + ["..."] * (len(members) > 8)
        raise Misfit(f"one of {', '.join(values)}", value)

    return Rule(convert)
