"""Makes the rule of each annotation. `_converters` has the rules of simple types and of containers."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence, Set

from ._annotations import Scope
from ._converters import SIMPLE, enum, first_of, key_of, literal, map_of, tuple_of, unchanged
from ._reading import Reader
from ._records import record_of
from ._rule import MaybeRule, Rule, optional

_NONE = type(None)


class Compiler(Reader[MaybeRule]):
    """Makes rules out of annotations. One compiler makes all rules of a command."""

    def __init__(self) -> None:
        self._rules: Dict[Any, MaybeRule] = {}  # of classes and aliases, which may be recursive

    def part(self, annotation: Any, scope: Scope, variables: Dict[Any, Any]) -> MaybeRule:
        """Reads an annotation inside of a class, like `tried`.

        Raises:
            RecursionError: The class has no end, so its fields are not worth another try each.
        """
        try:
            return self.read(annotation, scope, variables)
        except RecursionError:
            raise
        except Exception:  # raised by the program's names and classes
            return None

    def read(self, annotation: Any, scope: Scope, variables: Dict[Any, Any]) -> MaybeRule:
        text = getattr(annotation, "__forward_arg__", annotation)
        if type(text) is not str:
            return super().read(annotation, scope, variables)
        read = super().read  # an alias such as Json = Union[str, List["Json"]] refers to itself by text
        return self.once((scope, text), variables, lambda: read(text, scope, variables))

    def anything(self) -> MaybeRule:
        return None

    def simple(self, type_: Any) -> MaybeRule:
        return SIMPLE[type_]

    def once(self, key: Any, variables: Dict[Any, Any], make: Callable[[], MaybeRule]) -> MaybeRule:
        key = (key, *((variable, _hashable(one)) for variable, one in variables.items()))
        if key in self._rules:
            return self._rules[key]
        later = self._rules[key] = Rule(lambda value: later.convert(value))
        rule: MaybeRule = None
        try:
            rule = make()
        finally:  # the parts that refer to it have `later`
            later.convert = unchanged if rule is None else rule.convert
            later.exact = later.exact if rule is None else rule.exact
        self._rules[key] = rule
        return rule

    def union(self, members: List[MaybeRule]) -> MaybeRule:
        demanding = [rule for rule in members if rule is not None]
        if len(demanding) < len(members):
            return None
        others = [rule for rule in demanding if rule is not SIMPLE[_NONE]]
        if len(others) == 1:
            return optional(others[0]) if len(members) > 1 else others[0]
        exact = [type_ for rule in demanding for type_ in rule.exact]
        return Rule(first_of([rule.convert for rule in demanding], frozenset(exact)), exact)

    def literal(self, values: Sequence[Any]) -> MaybeRule:
        return literal(values)

    def tuple_(self, items: Optional[Sequence[MaybeRule]], each: MaybeRule) -> MaybeRule:
        return Rule(tuple_of(items, each))

    def container(self, make: Any, parts: Sequence[MaybeRule]) -> MaybeRule:
        if make is not map_of:
            return Rule(make(parts[0] if parts else None))
        key, value = parts if len(parts) == 2 else (None, None)
        return Rule(map_of(None if key is None or key is SIMPLE[str] else key_of(key), value))

    def array(self, arguments: Sequence[Any], variables: Dict[Any, Any]) -> MaybeRule:
        from . import _converters_numpy

        return _converters_numpy.array(arguments, variables)

    def scalar(self, cls: Any) -> MaybeRule:
        from . import _converters_numpy

        return _converters_numpy.scalar(cls)

    def enum(self, cls: Any) -> MaybeRule:
        return enum(cls, self)

    def text(self, cls: Any) -> MaybeRule:
        from . import _converters_text

        return _converters_text.rule(cls)

    def annotated(self, annotation: Any, modules: Set[str]) -> MaybeRule:
        from . import _converters_models

        return _converters_models.annotated(annotation, modules)

    def pydantic(self, cls: Any) -> MaybeRule:
        from . import _converters_models

        return _converters_models.pydantic(cls)

    def pydantic1(self, cls: Any) -> MaybeRule:
        from . import _converters_models

        return _converters_models.pydantic1(cls)

    def msgspec(self, cls: Any) -> MaybeRule:
        from . import _converters_models

        return _converters_models.msgspec(cls)

    def record(self, cls: Any, variables: Dict[Any, Any]) -> MaybeRule:
        from . import _converters_records

        record = record_of(cls)
        if record is None:
            return None
        fields = record
        return self.once(cls, variables, lambda: _converters_records.rule(self, fields, variables))


class _Identity:
    """Stands for an object that can't be hashed. It keeps the object alive."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def __hash__(self) -> int:
        return id(self._of)

    def __eq__(self, other: object) -> bool:
        return type(other) is _Identity and other._of is self._of


def _hashable(annotation: Any) -> Any:
    try:
        hash(annotation)
    except TypeError:  # such as the metadata of an Annotated
        return _Identity(annotation)
    return annotation
