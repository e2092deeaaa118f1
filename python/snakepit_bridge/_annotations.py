"""Evaluates annotations. Any annotation may be text, and the text may need a newer Python than this one."""

from __future__ import annotations

import sys
import typing
from types import FunctionType
from typing import Any, Dict, Mapping, Optional


class Scope:
    """Where the text of annotations is evaluated.

    Args:
        globals_: The global names.
        locals_: More names. They come first.
        fallback: Names for a text that is an error without them.
    """

    def __init__(
        self, globals_: Dict[str, Any], locals_: Mapping[str, Any], fallback: Optional[Mapping[str, Any]] = None
    ) -> None:
        self.globals = globals_
        self.locals = locals_
        self.fallback = fallback

    def evaluated(self, annotation: Any) -> Any:
        """Returns an annotation that is no text.

        Raises:
            Exception: This Python can't evaluate the text. It may be anything that the program's names raise.
        """
        for _ in range(16):  # a text may evaluate to a text
            if isinstance(annotation, typing.ForwardRef):
                annotation = annotation.__forward_arg__
            if not isinstance(annotation, str):
                return annotation
            try:
                annotation = self._evaluate(annotation, self.locals)
            except NameError:
                if self.fallback is None:
                    raise
                annotation = self._evaluate(annotation, {**self.fallback, **self.locals})
        return typing.Any

    def _evaluate(self, text: str, names: Mapping[str, Any]) -> Any:
        text = text.strip()
        try:
            return eval(text, self.globals, names)
        except TypeError:
            if sys.version_info >= (3, 10):
                raise
        from ._annotations_older import compiled, helpers

        return eval(compiled(text), self.globals, {**names, **helpers})


def scope_of_function(function: Any, owner: Optional[type]) -> Scope:
    """Returns the scope of a function's annotations. A method has an owner."""
    annotations = function.__annotations__
    while getattr(getattr(function, "__wrapped__", None), "__annotations__", None) is annotations:
        if type(function.__wrapped__) is not FunctionType:
            break
        function = function.__wrapped__  # functools.wraps has copied its annotations, which may be text
    names: Dict[str, Any] = {}
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or ()):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            pass
    for parameter in getattr(function, "__type_params__", ()):  # 3.12 and later
        names[parameter.__name__] = parameter
    return Scope(function.__globals__, names, None if owner is None else vars(owner))


def scope_of_class(cls: type) -> Scope:
    """Returns the scope of the annotations in a class's body."""
    module = sys.modules.get(cls.__module__)
    names = {parameter.__name__: parameter for parameter in getattr(cls, "__type_params__", ())}
    names[cls.__name__] = cls  # it may be local in a function
    return Scope({} if module is None else vars(module), names, vars(cls))


def scopes_of_fields(cls: type) -> Dict[str, Scope]:
    """Returns the scope of each annotated name of a class: that of the base whose body has the annotation."""
    scopes: Dict[str, Scope] = {}
    for base in reversed(cls.__mro__):
        names = vars(base).get("__annotations__")
        if names:
            scopes.update(dict.fromkeys(names, scope_of_class(base)))
    return scopes
