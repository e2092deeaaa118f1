"""The forms of JSON Schemas. A schema is a map; {} is that of any value."""

from __future__ import annotations

import re
from math import isfinite
from typing import Any, Dict, List, Sequence, Set

from ._records import NOTHING
from ._reduction import reduced

Schema = Dict[str, Any]

NULL: Schema = {"type": "null"}
DURATION: Schema = {"type": "number", "format": "duration"}
BINARY: Schema = {"type": "string", "contentEncoding": "base64"}

REF = "#/$defs/"
MAX_TEXT = 4_000
"""How many characters a description or another text may have."""

_MEMBERS = 500  # of an Enum or a Literal


def array_of(items: Schema) -> Schema:
    return {"type": "array", "items": items} if items else {"type": "array"}


def enum_of(values: Sequence[Any]) -> Schema:
    """Returns the schema of some values, or {} if one of them has no plain form."""
    values = [plain(value) for value in values]
    if not values or len(values) > _MEMBERS or any(value is NOTHING for value in values):
        return {}
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    types = {names.get(type(value), "") for value in values}
    schema: Schema = {"type": types.pop()} if len(types) == 1 and "" not in types else {}
    return {**schema, "enum": values}


def plain(value: Any, levels: int = 3) -> Any:
    """Returns a small value as JSON has it, or NOTHING."""
    try:
        value = reduced(value)
    except Exception:  # raised by the program's class
        return NOTHING
    type_ = type(value)
    if value is None or type_ is bool:
        return value
    if type_ is str:
        return value if len(value) <= MAX_TEXT else NOTHING
    if type_ is int:
        return value if abs(value) < 2**63 else NOTHING
    if type_ is float:
        return value if isfinite(value) else NOTHING
    if type_ in (list, tuple) and levels and len(value) <= 32:
        items = [plain(one, levels - 1) for one in value]
        return NOTHING if any(one is NOTHING for one in items) else items
    return {} if value == {} and type_ is dict else NOTHING


def any_of(members: Sequence[Schema]) -> Schema:
    """Returns the schema of a value that fits one of these. A schema that demands nothing makes the others useless."""
    flat: List[Schema] = []
    for member in members:
        for one in member["anyOf"] if list(member) == ["anyOf"] else [member]:
            if not one:
                return {}
            if one not in flat:
                flat.append(one)
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


def with_default(schema: Schema, default: Any) -> Schema:
    """Adds a default to the schema of a parameter or field. If the default is None, the schema also accepts null."""
    if default is None:
        schema = any_of([schema, NULL])
    value = NOTHING if default is NOTHING else plain(default)
    return schema if value is NOTHING else {**schema, "default": value}


def references(schema: Any) -> Set[str]:
    """Returns the names of the definitions that a schema refers to."""
    found: Set[str] = set()
    if isinstance(schema, dict):
        ref = schema.get("$ref")
        if isinstance(ref, str):
            found.add(ref[len(REF) :])
        schema = list(schema.values())
    if isinstance(schema, list):
        for one in schema:
            found |= references(one)
    return found


def renamed(schema: Any, names: Dict[str, str]) -> Any:
    """Returns a schema whose references have other names."""
    if isinstance(schema, dict):
        changed = {key: renamed(value, names) for key, value in schema.items()}
        ref = schema.get("$ref")
        if isinstance(ref, str):
            changed["$ref"] = REF + names.get(ref[len(REF) :], ref[len(REF) :])
        return changed
    return [renamed(one, names) for one in schema] if isinstance(schema, list) else schema


def adopted(schema: Any, names: Dict[str, str]) -> Any:
    """Returns a schema of a library, in our form and with our names."""
    if isinstance(schema, (list, tuple)):
        return [adopted(one, names) for one in schema]
    if not isinstance(schema, dict):
        return None if plain(schema) is NOTHING else schema
    form = schema.get("format")
    own = DURATION if form in ("duration", "time-delta") else BINARY if form == "binary" else {}  # as pydantic 1 does
    if own or isinstance(schema.get("contentEncoding"), str):
        schema = {**{key: value for key, value in schema.items() if key not in ("default", "format")}, **own}
    ours: Schema = {}
    for key, value in schema.items():
        if not isinstance(value, str):  # a property may have any name
            ours[key] = adopted(value, names)
        elif key == "$ref":
            ours[key] = REF + names.get(value.rpartition("/")[2], "")
        elif key == "description":
            ours[key] = value[:MAX_TEXT]
        elif key != "title":  # pydantic makes one of each field's name
            ours[key] = value
    return ours


def plain_name(text: str) -> str:
    return re.sub(r"\W+", "_", text, flags=re.ASCII)[:100] or "Unnamed"
