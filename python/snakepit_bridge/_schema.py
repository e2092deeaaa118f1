"""Describes the arguments, items and results of commands in JSON Schema, draft 2020-12.

docs/protocol.md has the form. Nothing here raises because of a program's annotations. What can't be described demands
nothing: its schema is {}.
"""

from __future__ import annotations

import collections.abc
import inspect
from types import FunctionType
from typing import Any, Callable, Dict, List, Sequence, Tuple

from ._annotations import Scope, scope_of_function
from ._command import Command, layers, signer
from ._records import NOTHING
from ._schema_forms import NULL, Schema, any_of, references, renamed, with_default
from ._schema_types import Types

NEVER: Schema = {"not": {}}
"""The schema of a value that there is not."""

_STREAMS: Dict[Any, int] = {  # each type that a generator may be annotated with, and where the result's type is
    collections.abc.Iterator: -1,
    collections.abc.Iterable: -1,
    collections.abc.Generator: 2,
    collections.abc.AsyncIterator: -1,
    collections.abc.AsyncIterable: -1,
    collections.abc.AsyncGenerator: -1,
}


def schemas(commands: Sequence[Command]) -> List[Dict[str, Any]]:
    """Returns the description of each command's values.

    A class has the same name in all of them. It has one definition, unless a result has other fields than an argument.
    """
    arguments, results = Types(results=False), Types(results=True)
    found: List[Tuple[Dict[str, Any], Dict[str, Any]]] = []
    for command in commands:
        try:
            found.append(_described(command, arguments, results))
        except Exception:  # a signature may be an object of the program
            found.append(({"arguments": {}}, {**({"items": {}} if command.stream else {}), "result": {}}))
    names = _own_names(arguments.definitions, results.definitions)
    definitions = {
        **{names.get(name, name): renamed(schema, names) for name, schema in results.definitions.items()},
        **arguments.definitions,
    }
    described: List[Dict[str, Any]] = []
    for taken, sent in found:
        one = {**taken, **renamed(sent, names)}
        needed = _closure(one, definitions)
        described.append({**one, "$defs": needed} if needed else one)
    return described


def _described(command: Command, arguments: Types, results: Types) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    function, _, owner = signer(command.function)
    scope, annotations = Scope({}, {}), {}
    if type(function) is FunctionType:
        scope, annotations = scope_of_function(function, owner), function.__annotations__
    follow = function is not next(layers(command.function))[0]
    parameters = [
        p for p in inspect.signature(command.function, follow_wrapped=follow).parameters.values() if p.name != "ctx"
    ]

    def schema_of(parameter: inspect.Parameter) -> Schema:
        schema: Schema = {}
        if parameter.name in annotations:
            schema = arguments.tried(annotations[parameter.name], scope)
        return with_default(schema, NOTHING if parameter.default is parameter.empty else parameter.default)

    taken = {"arguments": _arguments(parameters, schema_of)}
    annotation = annotations.get("return", NOTHING)
    if command.stream:
        items, result = _items(annotation, scope, results)
        return taken, {"items": items, "result": result}
    return taken, {"result": {} if annotation is NOTHING else results.tried(annotation, scope)}


def _arguments(parameters: Sequence[inspect.Parameter], schema_of: Callable[[inspect.Parameter], Schema]) -> Schema:
    """Returns the schema of a call's argument: a map of the arguments, or one value for a parameter without a name."""
    by_kind: Dict[Any, List[inspect.Parameter]] = {}
    for parameter in parameters:
        by_kind.setdefault(parameter.kind, []).append(parameter)
    named = by_kind.get(inspect.Parameter.POSITIONAL_OR_KEYWORD, []) + by_kind.get(inspect.Parameter.KEYWORD_ONLY, [])
    placed = by_kind.get(inspect.Parameter.POSITIONAL_ONLY, [])
    variadic = by_kind.get(inspect.Parameter.VAR_POSITIONAL, [])
    rest = by_kind.get(inspect.Parameter.VAR_KEYWORD, [])
    required = [p.name for p in named if p.default is p.empty]
    by_name: Schema = {
        "type": "object",
        "properties": {p.name: schema_of(p) for p in named},
        "required": required,
        "additionalProperties": (schema_of(rest[0]) or True) if rest else False,
    }
    if not placed and (named or rest or not variadic):
        return by_name
    first = schema_of((placed or variadic)[0])
    needed = [p for p in placed if p.default is p.empty]
    if len(needed) > 1 or (needed and required):
        return dict(NEVER)  # no call has two arguments if one of them has no name
    if needed:
        return first
    return any_of([first, by_name if named or rest else NULL])


def _items(annotation: Any, scope: Scope, types: Types) -> Tuple[Schema, Schema]:
    """Returns the schemas of a generator's items and of its result."""
    try:
        annotation = scope.evaluated(annotation)
        while hasattr(annotation, "__metadata__"):
            annotation = scope.evaluated(annotation.__origin__)
    except Exception:  # raised by the program's names
        return {}, {}
    origin = getattr(annotation, "__origin__", annotation)
    try:
        place = _STREAMS.get(origin, 0)
    except TypeError:  # it can't be hashed
        place = 0
    parts = getattr(annotation, "__args__", None) or ()
    if not place or not parts:
        return {}, {}
    items = types.tried(parts[0], scope)
    if place > 0:
        return items, types.tried(parts[place], scope) if len(parts) > place else dict(NULL)
    is_async = origin.__name__.startswith("Async")
    return items, dict(NULL) if is_async else {}


def _own_names(taken: Dict[str, Schema], sent: Dict[str, Schema]) -> Dict[str, str]:
    """Returns new names for the definitions of results that differ from those of the same name of arguments.

    A default makes a field optional in an argument only. Which fields are required makes no difference here, so that
    a program may send back what it got.
    """

    def essence(schema: Schema) -> Schema:
        return {key: value for key, value in schema.items() if key not in ("required", "minItems")}

    same = {name for name in taken if name in sent and essence(taken[name]) == essence(sent[name])}
    while True:
        broken = {name for name in same if any(ref in taken and ref not in same for ref in references(sent[name]))}
        if not broken:
            break
        same -= broken
    names: Dict[str, str] = {}
    for name in sent:
        if name in taken and name not in same:
            new = name + "Result"
            while new in taken or new in sent or new in names.values():
                new += "_"
            names[name] = new
    return names


def _closure(schema: Any, definitions: Dict[str, Schema]) -> Dict[str, Schema]:
    """Returns the definitions that a schema needs, sorted by name."""
    found: Dict[str, Schema] = {}
    waiting = references(schema)
    while waiting:
        name = waiting.pop()
        if name not in found and name in definitions:
            found[name] = definitions[name]
            waiting |= references(found[name])
    return dict(sorted(found.items()))
