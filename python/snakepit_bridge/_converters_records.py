"""The rules of classes with named fields: dataclasses, attrs classes, named tuples and typed dicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, FrozenSet, Mapping, NoReturn, Optional, Sequence

from ._misfit import Misfit, listed, there_are, unexpected
from ._records import NOTHING, Record
from ._rule import MaybeRule, Rule, as_list, converted, made, optional

if TYPE_CHECKING:
    from ._compiler import Compiler


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
        """Returns the function that converts a map of the fields, and builds a value of them, or returns the map."""
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
            return fields if build is None else made(build, (), fields)

        return convert

    def _refuse(self, value: Any) -> NoReturn:
        if type(value) is not dict:
            raise Misfit(f"a map with {listed(list(self.rules))}" if self.rules else "a map", value)
        wrong = "" if self.more else unexpected("field", value, list(self.rules))
        if wrong:
            raise Misfit("", reason=wrong)
        missing = [name for name in self.rules if name in self.required and name not in value]
        others = [name for name in value if name not in self.names]
        text = f"missing field{'s' if len(missing) > 1 else ''} {listed(missing)}"
        raise Misfit("", reason=text + (there_are(others) if others else ""))


def rule(compiler: Compiler, record: Record, variables: Dict[Any, Any]) -> MaybeRule:
    """Returns the rule of a record. The last argument has the types of its type variables."""
    fields = [field for field in record.fields if field.taken]
    rules: Dict[str, MaybeRule] = {}
    for field in fields:
        one: MaybeRule = None
        if field.annotation is not NOTHING and not field.converted:  # a converter takes what it likes
            one = compiler.part(field.annotation, field.scope, variables)
        rules[field.taken] = optional(one) if field.default is None else one
    required = [field.taken for field in fields if field.required]
    if record.kind == "dict":
        return Rule(_Fields(rules, required, more=True).converter(None))
    by_name = _Fields(rules, required).converter(record.cls)
    return Rule(_by_place(record.cls, rules, required, by_name) if record.kind == "tuple" else by_name)


def _by_place(
    cls: Any, rules: Mapping[str, MaybeRule], required: Sequence[str], by_name: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """Returns the converter of a named tuple, which takes a list, too."""
    places = list(rules.items())

    def convert(value: Any) -> Any:
        if type(value) is dict:
            return by_name(value)
        items = as_list(value)
        if not len(required) <= len(items) <= len(places):
            count = f"{len(places)}" if len(required) == len(places) else f"{len(required)} to {len(places)}"
            raise Misfit("", reason=f"expected a list of {count}, got one of {len(items)}")
        return made(cls, [converted(one, item, name) for (name, one), item in zip(places, items)], {})

    return convert
