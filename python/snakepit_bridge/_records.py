"""The fields of dataclasses, attrs classes, named tuples, typed dicts, and of msgspec's structs."""

from __future__ import annotations

import sys
from typing import Any, List, Optional

from ._annotations import Scope, scope_of_class, scopes_of_fields

NOTHING: Any = object()
"""Stands for a default or an annotation that there is not."""


class Field:
    """A field of a record.

    Attributes:
        taken: Its name in an argument, or "" if the constructor does not take it.
        sent: Its name in a result, or "" if a result does not have it.
        annotation: Its annotation, or NOTHING.
        scope: Where the text of its annotation is evaluated.
        required: Whether an argument must have it.
        default: Its default, or NOTHING if there is none that a call does not make.
        converted: Whether a function of the program converts it.
    """

    __slots__ = ("annotation", "converted", "default", "required", "scope", "sent", "taken")

    def __init__(self, name: str, annotation: Any, scope: Scope, required: bool, default: Any = NOTHING) -> None:
        self.taken = self.sent = name
        self.annotation = annotation
        self.scope = scope
        self.required = required
        self.default = default
        self.converted = False


class Record:
    """The fields of a class.

    Attributes:
        cls: The class.
        kind: "class", "tuple" or "dict".
        fields: The fields, in order.
    """

    __slots__ = ("cls", "fields", "kind")

    def __init__(self, cls: Any, kind: str, fields: List[Field]) -> None:
        self.cls = cls
        self.kind = kind
        self.fields = fields


def record_of(cls: Any, made: bool = True) -> Optional[Record]:
    """Returns the fields of a class, or None if its instances have no named fields.

    Args:
        cls: The class.
        made: Whether the constructor has to take the fields.
    """
    if type(cls).__name__ == "_TypedDictMeta":
        return Record(cls, "dict", _typed_dict(cls))
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return Record(cls, "tuple", _named_tuple(cls))
    if "__attrs_attrs__" in vars(cls):
        return Record(cls, "class", _attrs(cls))
    if "__dataclass_fields__" in vars(cls) and (cls.__dataclass_params__.init or not made):
        return Record(cls, "class", _dataclass(cls))
    return None


def struct_of(cls: Any) -> Record:
    """Returns the fields of a struct of msgspec."""
    module: Any = sys.modules["msgspec.structs"]
    scope = scope_of_class(cls)
    fields = []
    for one in module.fields(cls):
        fields.append(Field(one.name, one.type, scope, one.required))
    return Record(cls, "class", fields)


def _dataclass(cls: Any) -> List[Field]:
    scopes = scopes_of_fields(cls)
    missing = sys.modules["dataclasses"].MISSING
    fields: List[Field] = []
    for one in cls.__dataclass_fields__.values():  # dataclasses.fields leaves out those of InitVar
        kind = repr(getattr(one, "_field_type", ""))
        if kind == "_FIELD_CLASSVAR":
            continue
        required = one.default is missing and one.default_factory is missing
        default = NOTHING if one.default is missing else one.default
        field = Field(one.name, one.type, scopes.get(one.name) or scope_of_class(cls), required, default)
        if not one.init:
            field.taken = ""
        if kind == "_FIELD_INITVAR":
            field.sent = ""
        fields.append(field)
    return fields


def _attrs(cls: Any) -> List[Field]:
    scopes = scopes_of_fields(cls)
    fields: List[Field] = []
    for one in cls.__attrs_attrs__:
        annotation = NOTHING if one.type is None else one.type
        required = repr(one.default) == "NOTHING"
        default = NOTHING if required or hasattr(one.default, "factory") else one.default
        field = Field(one.name, annotation, scopes.get(one.name) or scope_of_class(cls), required, default)
        field.converted = one.converter is not None
        field.taken = (getattr(one, "alias", None) or one.name.lstrip("_")) if one.init else ""
        fields.append(field)
    return fields


def _named_tuple(cls: Any) -> List[Field]:
    annotations, scopes = getattr(cls, "__annotations__", {}), scopes_of_fields(cls)
    defaults = getattr(cls, "_field_defaults", {})
    return [
        Field(
            name,
            annotations.get(name, NOTHING),
            scopes.get(name) or scope_of_class(cls),
            name not in defaults,
            defaults.get(name, NOTHING),
        )
        for name in cls._fields
    ]


def _typed_dict(cls: Any) -> List[Field]:
    scopes = scopes_of_fields(cls)
    bases: List[Any] = list(getattr(cls, "__orig_bases__", ()))
    while bases:  # a TypedDict's bases are not among its bases at run time
        base = bases.pop()
        base = getattr(base, "__origin__", base)
        bases += getattr(base, "__orig_bases__", ())
        scopes = {**scopes_of_fields(base), **scopes} if isinstance(base, type) else scopes
    required = set(getattr(cls, "__required_keys__", cls.__annotations__ if cls.__total__ else ()))
    fields: List[Field] = []
    for name, annotation in cls.__annotations__.items():
        scope = scopes.get(name) or scope_of_class(cls)
        # If the annotation was text, the class could not read its qualifier.
        qualifier = _qualifier(annotation, scope)
        needed = name in required if qualifier not in ("Required", "NotRequired") else qualifier == "Required"
        fields.append(Field(name, annotation, scope, needed))
    return fields


def _qualifier(annotation: Any, scope: Scope) -> str:
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
