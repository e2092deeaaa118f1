"""The rules of classes with named fields: dataclasses, attrs classes, named tuples and typed dicts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Callable, Dict, FrozenSet, List, Mapping, NoReturn, Optional, Sequence

from ._annotations import scope_of_class, scopes_of_fields
from ._interrupt import enter
from ._misfit import Misfit, listed, refused, suggestion, there_are
from ._rule import MaybeRule, Rule, as_list, converted, made, optional

if TYPE_CHECKING:
    from ._compiler import Compiler

Maker = Callable[["Compiler", Any, Dict[Any, Any]], MaybeRule]
"""Makes the rule of a class. The last argument is what its type variables stand for."""


def maker(cls: Any) -> Optional[Maker]:
    """Returns what makes the rule of a class, or None if its instances are not made of named fields."""
    if type(cls).__name__ == "_TypedDictMeta":
        return _typed_dict
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _named_tuple
    if "__attrs_attrs__" in vars(cls):
        return _attrs
    if "__dataclass_fields__" in vars(cls) and cls.__dataclass_params__.init:
        return _dataclass
    return None


class _Fields:
    """The fields of a class.

    Args:
        rules: The rule of each field, by name.
        required: The names of the fields without a default.
        more: Whether a map may have other keys.
    """

    def __init__(self, rules: Mapping[str, MaybeRule], required: Sequence[str], more: bool = False) -> None:
        self.rules = rules
        self.names = frozenset(rules)
        self.required: FrozenSet[str] = frozenset(required)
        self.more = more

    def converter(self, build: Optional[Callable[..., Any]]) -> Callable[[Any], Any]:
        """Returns what converts a map of the fields, and builds a value of them. By default, that is the map."""
        count, required, more, refuse = len(self.names), self.required, self.more, self._refuse
        checks = [(name, rule and rule.exact, rule and rule.convert) for name, rule in self.rules.items()]

        def convert(value: Any) -> Any:
            if type(value) is not dict:
                refuse(value)
            fields = value
            known = 0
            name = ""
            try:
                for name, exact, change in checks:
                    if name in value:
                        known += 1
                        if change and type(value[name]) not in exact:  # type: ignore[operator]
                            if fields is value:
                                fields = value.copy()
                            fields[name] = change(value[name])
            except Misfit as exc:
                exc.path.append(name)
                raise
            if (known < count and not required <= value.keys()) or (known < len(value) and not more):
                refuse(value)
            if build is None:
                return fields
            try:
                return enter(build, (), fields)
            except Exception as exc:
                raise refused(exc) from exc

        return convert

    def _refuse(self, value: Any) -> NoReturn:
        if type(value) is not dict:
            raise Misfit(f"a map with {listed(list(self.rules))}" if self.rules else "a map", value)
        unexpected = [name for name in value if name not in self.names]
        missing = [name for name in self.rules if name in self.required and name not in value]
        if self.more or not unexpected:
            text = f"missing field{'s' if len(missing) > 1 else ''} {listed(missing)}"
            raise Misfit("", reason=text + (there_are(unexpected) if unexpected else ""))
        hint = suggestion(unexpected[0], [name for name in self.rules if name not in value])
        raise Misfit("", reason=f"unexpected field {listed(unexpected[:1])}{hint}")


def _dataclass(compiler: Compiler, cls: Any, variables: Dict[Any, Any]) -> MaybeRule:
    scopes = scopes_of_fields(cls)
    missing = sys.modules["dataclasses"].MISSING
    rules: Dict[str, MaybeRule] = {}
    required: List[str] = []
    for field in cls.__dataclass_fields__.values():  # dataclasses.fields leaves out those of InitVar
        if not field.init or repr(getattr(field, "_field_type", "")) == "_FIELD_CLASSVAR":
            continue
        scope = scopes.get(field.name) or scope_of_class(cls)
        rule = compiler.tried(field.type, scope, variables)
        rules[field.name] = optional(rule) if field.default is None else rule
        if field.default is missing and field.default_factory is missing:
            required.append(field.name)
    return _record(cls, rules, required)


def _attrs(compiler: Compiler, cls: Any, variables: Dict[Any, Any]) -> MaybeRule:
    scopes = scopes_of_fields(cls)
    rules: Dict[str, MaybeRule] = {}
    required: List[str] = []
    for field in cls.__attrs_attrs__:
        if not field.init:
            continue
        name = getattr(field, "alias", None) or field.name.lstrip("_")
        rule: MaybeRule = None
        if field.type is not None and field.converter is None:  # a converter takes what it likes
            rule = compiler.tried(field.type, scopes.get(field.name) or scope_of_class(cls), variables)
        rules[name] = optional(rule) if field.default is None else rule
        if repr(field.default) == "NOTHING":
            required.append(name)
    return _record(cls, rules, required)


def _record(cls: Any, rules: Mapping[str, MaybeRule], required: Sequence[str]) -> Rule:
    return Rule(_Fields(rules, required).converter(cls))


def _named_tuple(compiler: Compiler, cls: Any, variables: Dict[Any, Any]) -> MaybeRule:
    annotations, scopes = getattr(cls, "__annotations__", {}), scopes_of_fields(cls)
    defaults = getattr(cls, "_field_defaults", {})
    rules: Dict[str, MaybeRule] = {}
    for name in cls._fields:
        rule = None
        if name in annotations:
            rule = compiler.tried(annotations[name], scopes.get(name) or scope_of_class(cls), variables)
        rules[name] = optional(rule) if name in defaults and defaults[name] is None else rule
    required = [name for name in cls._fields if name not in defaults]
    by_name = _Fields(rules, required).converter(cls)
    by_place = list(rules.items())

    def convert(value: Any) -> Any:
        if type(value) is dict:
            return by_name(value)
        items = as_list(value)
        if not len(required) <= len(items) <= len(by_place):
            count = f"{len(by_place)}" if len(required) == len(by_place) else f"{len(required)} to {len(by_place)}"
            raise Misfit("", reason=f"expected a list of {count}, got one of {len(items)}")
        return made(cls, [converted(rule, one, name) for (name, rule), one in zip(by_place, items)], {})

    return Rule(convert)


def _typed_dict(compiler: Compiler, cls: Any, variables: Dict[Any, Any]) -> MaybeRule:
    scopes = scopes_of_fields(cls)
    bases: List[Any] = list(getattr(cls, "__orig_bases__", ()))
    while bases:  # a TypedDict's bases are not among its bases at run time
        base = bases.pop()
        base = getattr(base, "__origin__", base)
        bases += getattr(base, "__orig_bases__", ())
        scopes = {**scopes_of_fields(base), **scopes} if isinstance(base, type) else scopes
    required = set(getattr(cls, "__required_keys__", cls.__annotations__ if cls.__total__ else ()))
    rules: Dict[str, MaybeRule] = {}
    for name, annotation in cls.__annotations__.items():
        scope = scopes.get(name) or scope_of_class(cls)
        rules[name] = compiler.tried(annotation, scope, variables)
        # If the annotation was text, the class could not read its qualifier.
        qualifier = _qualifier(annotation, scope)
        if qualifier == "Required":
            required.add(name)
        elif qualifier == "NotRequired":
            required.discard(name)
    return Rule(_Fields(rules, list(required), more=True).converter(None))


def _qualifier(annotation: Any, scope: Any) -> str:
    try:
        for _ in range(4):  # Annotated and ReadOnly may be around it
            annotation = scope.evaluated(annotation)
            if hasattr(annotation, "__metadata__"):
                annotation = annotation.__origin__
                continue
            name: str = getattr(getattr(annotation, "__origin__", None), "_name", "") or ""
            if name != "ReadOnly":
                return name
            annotation = annotation.__args__[0]
    except Exception:  # raised by the program's names
        pass
    return ""
