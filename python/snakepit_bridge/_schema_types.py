"""Makes a JSON Schema of each annotation. It says what a rule of `_compiler` accepts, or what a result travels as."""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any, Callable, Dict, List, Optional, Sequence, Set

from ._annotations import Scope
from ._converters import map_of
from ._reading import Reader, is_class
from ._records import NOTHING, Field, Record, record_of, struct_of
from ._schema_forms import (
    BINARY,
    DURATION,
    MAX_TEXT,
    NULL,
    REF,
    Schema,
    adopted,
    any_of,
    array_of,
    enum_of,
    plain_name,
    with_default,
)

_NONE = type(None)
_SIMPLE: Dict[Any, Schema] = {
    object: {},
    _NONE: NULL,
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bytes: BINARY,
    bytearray: BINARY,
    memoryview: BINARY,
}
_TEXT: Dict[Any, Schema] = {
    ("datetime", "datetime"): {"type": "string", "format": "date-time"},
    ("datetime", "date"): {"type": "string", "format": "date"},
    ("datetime", "time"): {"type": "string", "format": "time"},
    ("datetime", "timedelta"): DURATION,
    ("decimal", "Decimal"): {"type": "string", "format": "decimal"},
    ("fractions", "Fraction"): {"type": "string", "format": "fraction"},
    ("uuid", "UUID"): {"type": "string", "format": "uuid"},
}

# The bounds of a description. What is beyond them is left out, which leaves a schema that says less.
_DEPTH = 60  # annotations inside each other
_SCHEMAS = 20_000  # annotations of one worker


class Types(Reader[Schema]):
    """Makes schemas for one direction, with the definitions that they refer to.

    Args:
        results: Whether the schemas are those of results. Otherwise they are those of arguments.

    Attributes:
        definitions: The schema of each class and alias, by name.
    """

    def __init__(self, results: bool) -> None:
        self.definitions: Dict[str, Schema] = {}
        self._results = results
        self._names: Dict[Any, str] = {}  # of the definitions, by class
        self._lifted: Dict[str, str] = {}  # the definitions of pydantic and msgspec as they came, by name
        self._depth = 0
        self._left = _SCHEMAS

    def read(self, annotation: Any, scope: Scope, variables: Dict[Any, Any]) -> Schema:
        if self._depth >= _DEPTH or self._left <= 0:
            raise ValueError("this is beyond the bounds")
        self._depth += 1
        self._left -= 1
        try:
            return super().read(annotation, scope, variables)
        finally:
            self._depth -= 1

    def anything(self) -> Schema:
        return {}

    def simple(self, type_: Any) -> Schema:
        return dict(_SIMPLE[type_])

    def once(self, key: Any, variables: Dict[Any, Any], make: Callable[[], Schema]) -> Schema:
        if str(key.__module__).partition(".")[0] == "numpy":  # NDArray is an alias in newer versions
            return make()
        whole = (key, *variables.items())
        try:
            name = self._names.get(whole)
        except TypeError:  # such as the metadata of an Annotated
            return make()
        if name is None:
            text = "_".join([key.__name__, *(getattr(one, "__name__", "") for one in variables.values())])
            name = self._names[whole] = self._free(text.rstrip("_"))
            self.definitions[name] = {}  # for a part that refers to it, if `make` fails
            self.definitions[name] = make()
        return {"$ref": REF + name}

    def union(self, members: List[Schema]) -> Schema:
        return any_of(members)

    def literal(self, values: Sequence[Any]) -> Schema:
        return enum_of([getattr(value, "value", value) for value in values])

    def tuple_(self, items: Optional[Sequence[Schema]], each: Schema) -> Schema:
        if items is None:
            return array_of(each)
        return {"type": "array", "prefixItems": [*items], "minItems": len(items), "maxItems": len(items)}

    def container(self, make: Any, parts: Sequence[Schema]) -> Schema:
        if make is not map_of:
            return array_of(parts[0] if parts else {})
        return {"type": "object", "additionalProperties": (parts[1] if len(parts) == 2 else {}) or True}

    def array(self, arguments: Sequence[Any], variables: Dict[Any, Any]) -> Schema:
        schema: Schema = {"x-snakepit": "array"}
        inner = getattr(arguments[1], "__args__", ()) if len(arguments) == 2 else ()
        element = variables.get(inner[0], inner[0]) if inner else None
        numpy: Any = sys.modules["numpy"]
        if isinstance(element, type) and issubclass(element, numpy.generic):
            try:
                schema["dtype"] = str(numpy.dtype(element))
            except Exception:  # it is abstract; older versions of NumPy only warn
                pass
        return schema

    def scalar(self, cls: Any) -> Schema:
        numpy: Any = sys.modules["numpy"]
        kinds = {numpy.bool_: "boolean", numpy.integer: "integer", numpy.floating: "number", numpy.str_: "string"}
        return next(({"type": name} for kind, name in kinds.items() if issubclass(cls, kind)), {})

    def enum(self, cls: Any) -> Schema:
        def make() -> Schema:
            schema = {"title": cls.__name__, **_described(cls)}
            if issubclass(cls, sys.modules["enum"].Flag):
                return {**schema, "type": "integer"}
            members = list(cls)
            values = enum_of([member.value for member in members])
            return {**schema, **values, "x-enum-varnames": [str(member.name) for member in members]} if values else {}

        return self.once(cls, {}, make)

    def text(self, cls: Any) -> Schema:
        schema = _TEXT.get((cls.__module__, cls.__name__))
        if schema is not None and cls is getattr(sys.modules[cls.__module__], cls.__name__):
            return dict(schema)
        path = getattr(sys.modules.get("pathlib"), "PurePath", None)
        return {"type": "string", "format": "path"} if path is not None and issubclass(cls, path) else {}

    def annotated(self, annotation: Any, modules: Set[str]) -> Optional[Schema]:
        if "msgspec" in modules:
            return None if self._results else self._msgspec(annotation)
        return self.pydantic(annotation) if hasattr(sys.modules.get("pydantic"), "TypeAdapter") else None

    def pydantic(self, cls: Any) -> Schema:
        if self._results and isinstance(cls, type) and hasattr(cls, "__dataclass_fields__"):
            return self.record(cls, {})  # a result has the fields of a dataclass, not what its serializers make

        from . import _schema_pydantic

        return self._lift(_schema_pydantic.schema_of(cls, self._results))

    def pydantic1(self, cls: Any) -> Schema:
        schema: Schema = cls.schema(by_alias=not self._results, ref_template=REF + "{model}")
        if "$ref" not in schema:
            inner = schema.pop("definitions", {})
            schema = {"$ref": REF + cls.__name__, "definitions": {**inner, cls.__name__: schema}}
        return self._lift(schema)

    def msgspec(self, cls: Any) -> Schema:
        if not self._results:
            return self._msgspec(cls)
        return self.once(cls, {}, lambda: self._record(struct_of(cls), {}))  # a result has the names of Python

    def _msgspec(self, annotation: Any) -> Schema:
        return self._lift(sys.modules["msgspec"].json.schema(annotation))

    def record(self, cls: Any, variables: Dict[Any, Any]) -> Schema:
        if is_class(cls, "snakepit_bridge._arrays", "Array"):
            return {"x-snakepit": "array"}
        record = record_of(cls, made=not self._results)
        if record is None:
            return {}
        fields = record
        return self.once(cls, variables, lambda: self._record(fields, variables))

    def _record(self, record: Record, variables: Dict[Any, Any]) -> Schema:
        schema: Schema = {"title": record.cls.__name__, **_described(record.cls)}
        fields: Dict[str, Field] = {}
        for field in record.fields:
            name = field.sent if self._results else field.taken
            if name:
                fields[name] = field
        parts: Dict[str, Schema] = {}
        for name, field in fields.items():
            part: Schema = {}
            if field.annotation is not NOTHING and (self._results or not field.converted):
                part = self.tried(field.annotation, field.scope, variables)
            parts[name] = with_default(part, field.default)
        sent_always = self._results and record.kind != "dict"
        needed = [name for name, field in fields.items() if sent_always or field.required]
        if record.kind == "tuple":
            items = [{**part, "title": name} for name, part in parts.items()]
            return {**schema, "type": "array", "prefixItems": items, "minItems": len(needed), "maxItems": len(items)}
        schema = {**schema, "type": "object", "properties": parts, "required": needed}
        return schema if record.kind == "dict" else {**schema, "additionalProperties": False}

    def _lift(self, schema: Schema) -> Schema:
        """Returns a library's schema. Its definitions become ours."""
        inner: Dict[str, Schema] = {}
        for key in ("$defs", "definitions"):
            inner.update(schema.pop(key, {}))
        names: Dict[str, str] = {}
        for name, one in inner.items():
            text = json.dumps(one, sort_keys=True, default=repr)
            base, number = plain_name(name), 1
            names[name] = base
            while names[name] in self.definitions and self._lifted.get(names[name]) != text:
                number += 1
                names[name] = f"{base}{number}"
            if names[name] not in self.definitions:
                self._lifted[names[name]] = text
                self.definitions[names[name]] = {}
                self._left -= text.count("{")
        for name, one in inner.items():
            if not self.definitions[names[name]]:
                self.definitions[names[name]] = {"title": name, **adopted(one, names)}
        return dict(adopted(schema, names))

    def _free(self, text: str) -> str:
        base = plain_name(text)
        name, number = base, 1
        while name in self.definitions:
            number += 1
            name = f"{base}{number}"
        return name


def _described(cls: Any) -> Schema:
    """Returns the description of a class: its own docstring, unless Python has made it."""
    doc = vars(cls).get("__doc__")
    made = (f"{cls.__name__}(", "An enumeration.")
    if type(doc) is not str or not doc.strip() or doc.startswith(made):
        return {}
    return {"description": inspect.cleandoc(doc[:MAX_TEXT])}
