"""Makes the rule of each annotation. `_converters` has the rules of simple types and of containers."""

from __future__ import annotations

import sys
import typing
from typing import Any, Callable, Dict, List, Optional, Sequence

from ._annotations import Scope
from ._converters import CONTAINERS, SIMPLE, enum, first_of, key_of, literal, map_of, tuple_of, unchanged
from ._rule import MaybeRule, Rule, optional

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
            return SIMPLE[_NONE]
        if annotation is typing.Any:
            return None
        if isinstance(annotation, type) and annotation in SIMPLE:
            return SIMPLE[annotation]
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
            return literal(annotation.__args__)
        if name in ("Final", "ClassVar", "Required", "NotRequired", "ReadOnly"):
            return self.rule(annotation.__args__[0], scope, variables)
        if annotation is typing.Tuple or annotation is tuple:
            return Rule(tuple_of(None, None))
        container = _container_of(annotation)
        if container is not None:
            return self._container(container, (), scope, variables)
        if origin is None:
            return self._class(annotation, {}) if isinstance(annotation, type) else None
        return self._generic(annotation, origin, scope, variables)

    def _generic(self, annotation: Any, origin: Any, scope: Scope, variables: Dict[Any, Any]) -> MaybeRule:
        arguments: Any = getattr(annotation, "__args__", ())
        if origin is tuple:
            if arguments in ((), ((),)):
                return Rule(tuple_of((), None))
            if len(arguments) == 2 and arguments[1] is Ellipsis:
                return Rule(tuple_of(None, self.rule(arguments[0], scope, variables)))
            if any(map(_is_unpacked, arguments)):
                return Rule(tuple_of(None, None))
            return Rule(tuple_of([self.rule(one, scope, variables) for one in arguments], None))
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
        rule: MaybeRule = None
        try:
            rule = make()
        finally:  # the parts that refer to it have `later`
            later.convert = unchanged if rule is None else rule.convert
            later.exact = later.exact if rule is None else rule.exact
        return rule

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
        if make is not map_of:
            return Rule(make(rules[0] if rules else None))
        key, value = rules if len(rules) == 2 else (None, None)
        return Rule(map_of(None if key is None or key is SIMPLE[str] else key_of(key), value))

    def _union(self, rules: List[MaybeRule]) -> MaybeRule:
        demanding = [rule for rule in rules if rule is not None]
        if len(demanding) < len(rules):
            return None
        others = [rule for rule in demanding if rule is not SIMPLE[_NONE]]
        if len(others) == 1:
            return optional(others[0]) if len(rules) > 1 else others[0]
        exact = [type_ for rule in demanding for type_ in rule.exact]
        return Rule(first_of([rule.convert for rule in demanding]), exact)

    def _class(self, cls: Any, variables: Dict[Any, Any]) -> MaybeRule:
        if _is_subclass(cls, "numpy", "generic"):
            from . import _converters_numpy

            return _converters_numpy.scalar(cls)
        if _is(cls, "numpy", "ndarray"):
            from . import _converters_numpy

            return _converters_numpy.array((), {})
        if _is_subclass(cls, "enum", "Enum"):
            return enum(cls, self)
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
        return CONTAINERS.get(annotation)
    except TypeError:  # it can't be hashed
        return None


def _is(cls: Any, module: str, name: str) -> bool:
    """Reports whether this is the class of that name. The program has imported its module, if it is."""
    return isinstance(cls, type) and cls is getattr(sys.modules.get(module), name, None)


def _is_subclass(cls: type, module: str, name: str) -> bool:
    base = getattr(sys.modules.get(module), name, None)
    return isinstance(base, type) and issubclass(cls, base)


def _is_unpacked(argument: Any) -> bool:
    """Reports whether an argument of a tuple stands for several, as in ``tuple[int, *Ts]``."""
    origin = getattr(argument, "__origin__", None)
    return getattr(argument, "__unpacked__", False) or getattr(origin, "_name", "") == "Unpack"
