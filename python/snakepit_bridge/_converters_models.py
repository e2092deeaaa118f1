"""The rules of pydantic and msgspec. Their own validators convert the value."""

from __future__ import annotations

import re
import sys
from functools import partial
from typing import Any, Callable, List, Set

from ._errors import attempt, text_of
from ._interrupt import enter
from ._misfit import Misfit, refused
from ._rule import MaybeRule, Rule


def annotated(annotation: Any, modules: Set[str]) -> MaybeRule:
    """Returns the rule of an ``Annotated`` whose metadata is of these libraries, or None if none of them is loaded."""
    if "msgspec" in modules:
        return msgspec(annotation)
    return pydantic(annotation) if hasattr(sys.modules.get("pydantic"), "TypeAdapter") else None


def pydantic(annotation: Any) -> Rule:
    """Returns the rule of a type of pydantic 2: a model, a dataclass of pydantic, or an ``Annotated``."""
    module: Any = sys.modules["pydantic"]
    return _rule(module.TypeAdapter(annotation).validate_python, _pydantic_misfit)


def pydantic1(model: Any) -> Rule:
    """Returns the rule of a model of pydantic 1."""
    return _rule(model.parse_obj, _pydantic_misfit)


def msgspec(annotation: Any) -> Rule:
    """Returns the rule of a type of msgspec."""
    return _rule(partial(sys.modules["msgspec"].convert, type=annotation), _msgspec_misfit)


def _rule(validate: Callable[[Any], Any], misfit: Callable[[Any], Misfit]) -> Rule:
    def convert(value: Any) -> Any:
        try:
            return enter(validate, (value,), {})
        except Exception as exc:
            if type(exc).__name__ != "ValidationError":  # raised by a validator of the program
                raise refused(exc) from exc
            raise attempt(None, misfit, exc) or refused(exc) from None

    return Rule(convert)


def _pydantic_misfit(exc: Any) -> Misfit:
    errors: List[Any] = exc.errors()
    text = text_of(errors[0]["msg"])
    if len(errors) > 1:
        text += f" (and {len(errors) - 1} more)"
    misfit = Misfit("", reason=text)
    misfit.path = [step for step in reversed(errors[0]["loc"]) if step != "__root__"]
    return misfit


def _msgspec_misfit(exc: Any) -> Misfit:
    text, found, place = text_of(exc).rpartition(" - at `$")
    if not found:
        return Misfit("", reason=place)
    misfit = Misfit("", reason=text)
    for name, index in re.findall(r"\.(\w+)|\[(.+?)\]", place):
        misfit.path.insert(0, int(index) if index.isdigit() else name or index)
    return misfit
