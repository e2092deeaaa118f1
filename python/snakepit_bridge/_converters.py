"""Makes the rule of each annotation. The simple types and the containers are here; other modules have the rest."""

from __future__ import annotations

import collections.abc
import sys
import typing
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ._annotations import Scope
from ._misfit import Misfit, got
from ._rule import MaybeRule, Rule, as_list, converted, made, optional

_NONE = type(None)


class Compiler:
    """Makes rules out of annotations. One compiler makes all rules of a command."""

    def __init__(self) -> None:
        self._rules: Dict[Any, Rule] = {}  # of classes and aliases, which may be recursive

    def tried(self, annotation: Any, scope: Scope, variables: Optional[Dict[Any, Any]] = None) -> MaybeRule:
        """Returns the rule of an annotation. If this Python can't evaluate it, the annotation demands nothing.

        Args:
            annotation: The annotation.
            scope: Where its text is evaluated.
            variables: What its type variables stand for.
        """
        try:
            return self.rule(annotation, scope, variables or {})
        except Exception:  # raised by the program's names and classes
            return None

    def rule(self, annotation: Any, scope: Scope, variables: Dict[Any, Any]) -> MaybeRule:
        """Returns the rule of an annotation, like `tried`.

        Raises:
            Exception: This Python can't evaluate the annotation.
        """
        annotation = scope.evaluated(annotation)
        if annotation is None:
            return _SIMPLE[_NONE]
        if annotation is typing.Any:
            return None
        if isinstance(annotation, type) and annotation in _SIMPLE:
            return _SIMPLE[annotation]
        kind = type(annotation).__name__
        if kind == "TypeVar":
            return None if annotation not in variables else self.rule(variables[annotation], scope, {})
        if kind == "InitVar":
            return self.rule(annotation.type, scope, variables)
        if kind == "TypeAliasType":
            return self._once(annotation, variables, lambda: self.rule(annotation.__value__, scope, variables))
        if hasattr(annotation, "__metadata__") and hasattr(annotation, "__origin__"):
            return self._annotated(annotation, scope, variables)
        if hasattr(annotation, "__supertype__"):  # a NewType
            return self.rule(annotation.__supertype__, scope, variables)
        origin = getattr(annotation, "__origin__", None)
        if kind == "UnionType" or origin is typing.Union:
            return self._union([self.rule(one, scope, variables) for one in annotation.__args__])
        name = getattr(origin, "_name", "")
        if name == "Literal":
            return _literal(annotation.__args__)
        if name in ("Final", "ClassVar", "Required", "NotRequired", "ReadOnly"):
            return self.rule(annotation.__args__[0], scope, variables)
        if annotation is typing.Tuple or annotation is tuple:
            return Rule(_tuple(None, None))
        container = _container_of(annotation)
        if container is not None:
            return self._container(container, (), scope, variables)
        if origin is None or origin is annotation:
            return self._class(annotation, {}) if isinstance(annotation, type) else None
        return self._generic(annotation, origin, scope, variables)

    def _generic(self, annotation: Any, origin: Any, scope: Scope, variables: Dict[Any, Any]) -> MaybeRule:
        arguments: Any = getattr(annotation, "__args__", ())
        if origin is tuple:
            if arguments in ((), ((),)):
                return Rule(_tuple((), None))
            if len(arguments) == 2 and arguments[1] is Ellipsis:
                return Rule(_tuple(None, self.rule(arguments[0], scope, variables)))
            if any("Unpack" in repr(one) or getattr(one, "__unpacked__", False) for one in arguments):
                return Rule(_tuple(None, None))
            return Rule(_tuple([self.rule(one, scope, variables) for one in arguments], None))
        container = _container_of(origin)
        if container is not None:
            return self._container(container, arguments, scope, variables)
        if _is(origin, "numpy", "ndarray"):
            from ._converters_numpy import array

            return array(arguments, variables)
        parameters = getattr(origin, "__parameters__", ()) or getattr(origin, "__type_params__", ())
        known = [
            variables.get(one, one) if isinstance(one, typing.TypeVar) else one
            for one in map(scope.evaluated, arguments)
        ]
        bound = dict(zip(parameters, known))
        if type(origin).__name__ == "TypeAliasType":
            return self._once(origin, bound, lambda: self.rule(origin.__value__, scope, bound))
        if hasattr(annotation, "__pydantic_validator__") or hasattr(annotation, "__struct_fields__"):
            origin = annotation
        return self._class(origin, bound) if isinstance(origin, type) else None

    def _once(self, key: Any, variables: Dict[Any, Any], make: Callable[[], MaybeRule]) -> MaybeRule:
        """Returns the rule of a class or alias. It may be part of itself."""
        key = (key, *variables.items())
        try:
            if key in self._rules:
                return self._rules[key]
        except TypeError:  # such as the metadata of an Annotated
            return make()
        later = self._rules[key] = Rule(lambda value: later.convert(value))
        made = make()
        later.convert = made.convert if made is not None else _unchanged
        if made is not None:
            later.exact = made.exact
        return made

    def _annotated(self, annotation: Any, scope: Scope, variables: Dict[Any, Any]) -> MaybeRule:
        modules = {type(one).__module__.partition(".")[0] for one in annotation.__metadata__}
        if modules & {"pydantic", "annotated_types", "msgspec"}:
            from . import _converters_models

            rule = _converters_models.annotated(annotation, modules)
            if rule is not None:
                return rule
        return self.rule(annotation.__origin__, scope, variables)

    def _container(self, make: Any, arguments: Sequence[Any], scope: Scope, variables: Dict[Any, Any]) -> MaybeRule:
        rules = [self.rule(one, scope, variables) for one in arguments]
        if make is not _map:
            return Rule(make(rules[0] if rules else None))
        key, value = rules if len(rules) == 2 else (None, None)
        return Rule(_map(None if key is None or key is _SIMPLE[str] else _key(key), value))

    def _union(self, rules: List[MaybeRule]) -> MaybeRule:
        demanding = [rule for rule in rules if rule is not None]
        if len(demanding) < len(rules):
            return None
        others = [rule for rule in demanding if rule is not _SIMPLE[_NONE]]
        if len(others) == 1:
            return optional(others[0]) if len(rules) > 1 else others[0]
        exact = [type_ for rule in demanding for type_ in rule.exact]
        return Rule(_first_of([rule.convert for rule in demanding]), exact)

    def _class(self, cls: Any, variables: Dict[Any, Any]) -> MaybeRule:
        if _is_subclass(cls, "numpy", "generic"):
            from . import _converters_numpy

            return _converters_numpy.scalar(cls)
        if _is(cls, "numpy", "ndarray"):
            from . import _converters_numpy

            return _converters_numpy.array((), {})
        if _is_subclass(cls, "enum", "Enum"):
            return _enum(cls, self)
        if cls.__module__ in ("datetime", "decimal", "fractions", "uuid") or _is_subclass(cls, "pathlib", "PurePath"):
            from . import _converters_text

            return _converters_text.rule(cls)
        if hasattr(cls, "__get_pydantic_core_schema__") or hasattr(cls, "__pydantic_validator__"):
            from . import _converters_models

            return _converters_models.pydantic(cls)
        if hasattr(cls, "__fields__") and hasattr(cls, "parse_obj"):
            from . import _converters_models

            return _converters_models.pydantic1(cls)
        if hasattr(cls, "__struct_fields__"):
            from . import _converters_models

            return _converters_models.msgspec(cls)
        from . import _converters_records

        make = _converters_records.maker(cls)
        return None if make is None else self._once(cls, variables, lambda: make(self, cls, variables))


def _container_of(annotation: Any) -> Any:
    try:
        return _CONTAINERS.get(annotation)
    except TypeError:  # it can't be hashed
        return None


def _is(cls: Any, module: str, name: str) -> bool:
    """Reports whether this is the class of that name. The program has imported its module, if it is."""
    return isinstance(cls, type) and cls is getattr(sys.modules.get(module), name, None)


def _is_subclass(cls: type, module: str, name: str) -> bool:
    base = getattr(sys.modules.get(module), name, None)
    return isinstance(base, type) and issubclass(cls, base)


def _unchanged(value: Any) -> Any:
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


_SIMPLE: Dict[Any, MaybeRule] = {
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


def _list(item: MaybeRule) -> Callable[[Any], List[Any]]:
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


def _set_of(type_: Callable[[List[Any]], Any]) -> Callable[[MaybeRule], Callable[[Any], Any]]:
    def make(item: MaybeRule) -> Callable[[Any], Any]:
        items_of = _list(item)

        def convert(value: Any) -> Any:
            items = items_of(value)
            try:
                return type_(items)
            except TypeError:
                raise Misfit("", reason="a list or map can't be an element of a set") from None

        return convert

    return make


def _tuple(items: Optional[Sequence[MaybeRule]], each: MaybeRule) -> Callable[[Any], Tuple[Any, ...]]:
    """Returns the converter of tuples: with a rule for each place, or with one for all."""
    if items is None:
        items_of = _list(each)
        return lambda value: tuple(items_of(value))
    rules = tuple(items)

    def convert(value: Any) -> Tuple[Any, ...]:
        found = as_list(value)
        if len(found) != len(rules):
            raise Misfit("", reason=f"expected a list of {len(rules)}, got one of {len(found)}")
        return tuple([converted(rule, one, index) for index, (rule, one) in enumerate(zip(rules, found))])

    return convert


def _map(key: Optional[Callable[[str], Any]], item: MaybeRule) -> Callable[[Any], Dict[Any, Any]]:
    exact = item.exact if item is not None else frozenset()

    def convert(value: Any) -> Dict[Any, Any]:
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
            try:
                new = key(name)
                repeated = new in keyed
            except Misfit as exc:
                raise Misfit("", reason=f"the key {got(name)}: {exc.text()}") from exc.__cause__
            except TypeError:
                raise Misfit("", reason=f"the key {got(name)}: a list or map can't be a key") from None
            if repeated:
                raise Misfit("", reason=f"the key {got(name)}: there are two such keys")
            keyed[new] = one
        return keyed

    return convert


def _key(rule: Rule) -> Callable[[str], Any]:
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


_CONTAINERS: Dict[Any, Any] = {
    list: _list,
    set: _set_of(set),
    frozenset: _set_of(frozenset),
    dict: _map,
    collections.abc.Sequence: _list,
    collections.abc.MutableSequence: _list,
    collections.abc.Iterable: _list,
    collections.abc.Collection: _list,
    collections.abc.Set: _set_of(set),
    collections.abc.MutableSet: _set_of(set),
    collections.abc.Mapping: _map,
    collections.abc.MutableMapping: _map,
}
for _name in ("List", "Set", "FrozenSet", "Dict"):
    _CONTAINERS[getattr(typing, _name)] = _CONTAINERS[getattr(typing, _name).__origin__]
for _name in ("Sequence", "MutableSequence", "Iterable", "Collection", "Mapping", "MutableMapping", "MutableSet"):
    _CONTAINERS[getattr(typing, _name)] = _CONTAINERS[getattr(collections.abc, _name)]
_CONTAINERS[typing.AbstractSet] = _set_of(set)


def _first_of(members: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """Returns the converter of a union. A member that takes the value as it is wins, else the first that converts."""

    def convert(value: Any) -> Any:
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

    return convert


def _literal(values: Sequence[Any]) -> Rule:
    def convert(value: Any) -> Any:
        for one in values:
            if _same(value, getattr(one, "value", one)):
                return value if type(one) is type(value) else one
        raise Misfit(f"one of {', '.join(map(got, values))}" if len(values) > 1 else got(values[0]), value)

    return Rule(convert)


def _same(value: Any, other: Any) -> bool:
    """Reports whether values are equal, and neither is a number if the other one is a bool."""
    if (type(value) is bool) != (type(other) is bool):
        return False
    return type(value) in (bool, int, float, str, bytes, _NONE) and bool(value == other)


def _enum(cls: Any, compiler: Compiler) -> Rule:
    members = list(cls)
    types = {type(member.value) for member in members}
    scope = Scope({}, {})
    rules = [rule for rule in (compiler.tried(type_, scope) for type_ in types if type_ not in _SIMPLE) if rule]

    def convert(value: Any) -> Any:
        for member in cls.__members__.values():
            if _same(value, member.value):
                return member
        for rule in rules:  # a value such as a Decimal or a tuple travels as another type
            try:
                new = rule.convert(value)
            except Misfit:
                continue
            for member in members:
                if member.value == new:
                    return member
        if type(value) is not bool:  # True is 1 for an Enum
            try:
                return made(cls, (value,), {})  # the class may know more values, as a Flag does
            except Misfit as exc:
                if type(exc.__cause__) is not ValueError:
                    raise
        values = [got(member.value) for member in members[:8]] + ["..."] * (len(members) > 8)
        raise Misfit(f"one of {', '.join(values)}", value)

    return Rule(convert)
