"""The JSON Schema of pydantic's types, in our form."""

from __future__ import annotations

import sys
from typing import Any, Dict, List


def schema_of(annotation: Any, results: bool) -> Dict[str, Any]:
    """Returns what pydantic says about a type.

    Args:
        annotation: A model, a dataclass of pydantic, or an ``Annotated``.
        results: Whether values of this type are results. ``model_dump`` makes maps of them, by the names of the fields.
    """
    module: Any = sys.modules["pydantic"]
    config = getattr(annotation, "model_config", None) or {}
    # The schema of a list refers to the model. That of the model itself is the whole model, without a name.
    found: Dict[str, Any] = module.TypeAdapter(List[annotation]).json_schema(
        by_alias=not results or bool(config.get("serialize_by_alias")),
        ref_template="#/$defs/{model}",
        schema_generator=_generator(results),
        mode="serialization" if results else "validation",
    )
    schema: Dict[str, Any] = found.pop("items", {})
    return {**schema, "$defs": found.get("$defs", {})}


def _generator(results: bool) -> Any:
    """Returns a generator of schemas that knows what travels in a form of its own, and that refuses no type."""
    from pydantic.json_schema import GenerateJsonSchema  # type: ignore[import-not-found, unused-ignore]

    from ._schema_forms import BINARY, DURATION

    base: Any = GenerateJsonSchema

    class Generator(base):  # type: ignore[misc]
        def bytes_schema(self, schema: Any) -> Any:
            return dict(BINARY)

        def timedelta_schema(self, schema: Any) -> Any:
            return dict(DURATION)

        def decimal_schema(self, schema: Any) -> Any:
            return {"type": "string", "format": "decimal"}

        def handle_invalid_for_json_schema(self, schema: Any, error_info: Any) -> Any:
            return {}

        def field_is_required(self, field: Any, total: bool) -> bool:
            if not results or field["type"] == "typed-dict-field":
                return bool(super().field_is_required(field, total))
            return not field.get("serialization_exclude")

        def emit_warning(self, kind: Any, detail: str) -> None:
            """Says nothing about a default that has no JSON."""

    return Generator
