"""Reads annotations: it finds out of what kind each one is. `_compiler` makes rules of them, `_schema` schemas."""

from __future__ import annotations

import sys
import typing
from abc import ABC, abstractmethod
from typing import Any, Callable, Dict, Generic, List, Optional, Sequence, Set, TypeVar

from ._annotations import Scope
from ._converters import CONTAINERS, SIMPLE

R = TypeVar("R")

_NONE = type(None)


class Reader(ABC, Generic[R]):
    """Reads annotations. A subclass makes something of each kind of annotation.

    The last argument of several methods has the types of the type variables.
    """

    @abstractmethod
    def anything(self) -> R:
        """Returns what becomes of an annotation that demands nothing."""

    @abstractmethod
    def simple(self, type_: Any) -> R:
        """Returns what becomes of a type in SIMPLE, such as int."""

    @abstractmethod
    def once(self, key: Any, variables: Dict[Any, Any], make: Callable[[], R]) -> R:
        """Returns what becomes of a class or an alias, which may be part of itself."""

    @abstractmethod
    def union(self, members: List[R]) -> R:
        """Returns what becomes of a union."""

    @abstractmethod
    def literal(self, values: Sequence[Any]) -> R:
        """Returns what becomes of a Literal."""

    @abstractmethod
    def tuple_(self, items: Optional[Sequence[R]], each: R) -> R:
        """Returns what becomes of a tuple: of one with these items, or of one whose items are alike."""

    @abstractmethod
    def container(self, make: Any, parts: Sequence[R]) -> R:
        """Returns what becomes of a container: its value in CONTAINERS, and what became of its arguments."""

    @abstractmethod
    def array(self, arguments: Sequence[Any], variables: Dict[Any, Any]) -> R:
        """Returns what becomes of an array of NumPy: its annotation may have a shape and a dtype as arguments."""

    @abstractmethod
    def scalar(self, cls: Any) -> R:
        """Returns what becomes of a scalar type of NumPy."""

    @abstractmethod
    def enum(self, cls: Any) -> R:
        """Returns what becomes of an Enum."""

    @abstractmethod
    def text(self, cls: Any) -> R:
        """Returns what becomes of a class of datetime, decimal, fractions, uuid or pathlib."""

    @abstractmethod
    def annotated(self, annotation: Any, modules: Set[str]) -> Optional[R]:
        """Returns what becomes of an ``Annotated`` with metadata of pydantic or msgspec, or None to ignore them."""

    @abstractmethod
    def pydantic(self, cls: Any) -> R:
        """Returns what becomes of a model of pydantic 2."""

    @abstractmethod
    def pydantic1(self, cls: Any) -> R:
        """Returns what becomes of a model of pydantic 1."""

    @abstractmethod
    def msgspec(self, cls: Any) -> R:
        """Returns what becomes of a Struct of msgspec."""

    @abstractmethod
    def record(self, cls: Any, variables: Dict[Any, Any]) -> R:
        """Returns what becomes of any other class. `_records` tells whether it has named fields."""

    def tried(self, annotation: Any, scope: Scope, variables: Optional[Dict[Any, Any]] = None) -> R:
        """Reads an annotation. If this Python can't evaluate it, the annotation demands nothing.

        Args:
            annotation: The annotation.
            scope: Where its text is evaluated.
            variables: The types of its type variables.
        """
        try:
            return self.read(annotation, scope, variables or {})
        except Exception:  # raised by the program's names and classes
            return self.anything()

    def read(self, annotation: Any, scope: Scope, variables: Dict[Any, Any]) -> R:
        """Reads an annotation, like `tried`.

        Raises:
            Exception: This Python can't evaluate the annotation.
        """
        annotation = scope.evaluated(annotation)
        if annotation is None:
            return self.simple(_NONE)
        if annotation is typing.Any:
            return self.anything()
        if isinstance(annotation, type) and annotation in SIMPLE:
            return self.simple(annotation)
        kind = type(annotation).__name__
        if kind == "TypeVar":
            return self.anything() if annotation not in variables else self.read(variables[annotation], scope, {})
        if kind == "InitVar":
            return self.read(annotation.type, scope, variables)
        if kind == "TypeAliasType":
            return self.once(annotation, variables, lambda: self.read(annotation.__value__, scope, variables))
        if hasattr(annotation, "__metadata__") and hasattr(annotation, "__origin__"):
            return self._annotated(annotation, scope, variables)
        if hasattr(annotation, "__supertype__"):  # a NewType
            return self.read(annotation.__supertype__, scope, variables)
        origin = getattr(annotation, "__origin__", None)
        if kind == "UnionType" or origin is typing.Union:
            return self.union([self.read(one, scope, variables) for one in annotation.__args__])
        name = getattr(origin, "_name", "")
        if name == "Literal":
            return self.literal(annotation.__args__)
        if name in ("Final", "ClassVar", "Required", "NotRequired", "ReadOnly"):
            return self.read(annotation.__args__[0], scope, variables)
        if annotation is typing.Tuple or annotation is tuple:
            return self.tuple_(None, self.anything())
        container = _container_of(annotation)
        if container is not None:
            return self.container(container, ())
        if origin is None:
            return self._class(annotation, {}) if isinstance(annotation, type) else self.anything()
        return self._generic(annotation, origin, scope, variables)

    def _generic(self, annotation: Any, origin: Any, scope: Scope, variables: Dict[Any, Any]) -> R:
        arguments: Any = getattr(annotation, "__args__", ())
        if origin is tuple:
            if arguments in ((), ((),)):
                return self.tuple_((), self.anything())
            if len(arguments) == 2 and arguments[1] is Ellipsis:
                return self.tuple_(None, self.read(arguments[0], scope, variables))
            if any(map(_is_unpacked, arguments)):
                return self.tuple_(None, self.anything())
            return self.tuple_([self.read(one, scope, variables) for one in arguments], self.anything())
        container = _container_of(origin)
        if container is not None:
            return self.container(container, [self.read(one, scope, variables) for one in arguments])
        if is_class(origin, "numpy", "ndarray"):
            return self.array(arguments, variables)
        parameters = getattr(origin, "__parameters__", ()) or getattr(origin, "__type_params__", ())
        known = [
            variables.get(one, one) if isinstance(one, typing.TypeVar) else one
            for one in map(scope.evaluated, arguments)
        ]
        bound = dict(zip(parameters, known))
        if type(origin).__name__ == "TypeAliasType":
            return self.once(origin, bound, lambda: self.read(origin.__value__, scope, bound))
        if hasattr(annotation, "__pydantic_validator__") or hasattr(annotation, "__struct_fields__"):
            origin = annotation
        return self._class(origin, bound) if isinstance(origin, type) else self.anything()

    def _annotated(self, annotation: Any, scope: Scope, variables: Dict[Any, Any]) -> R:
        modules = {type(one).__module__.partition(".")[0] for one in annotation.__metadata__}
        if modules & {"pydantic", "annotated_types", "msgspec"}:
            found = self.annotated(annotation, modules)
            if found is not None:
                return found
        return self.read(annotation.__origin__, scope, variables)

    def _class(self, cls: Any, variables: Dict[Any, Any]) -> R:
        if _is_subclass(cls, "numpy", "generic"):
            return self.scalar(cls)
        if is_class(cls, "numpy", "ndarray"):
            return self.array((), {})
        if _is_subclass(cls, "enum", "Enum"):
            return self.enum(cls)
        if cls.__module__ in ("datetime", "decimal", "fractions", "uuid") or _is_subclass(cls, "pathlib", "PurePath"):
            return self.text(cls)
        if hasattr(cls, "__get_pydantic_core_schema__") or hasattr(cls, "__pydantic_validator__"):
            return self.pydantic(cls)
        if hasattr(cls, "__fields__") and hasattr(cls, "parse_obj"):
            return self.pydantic1(cls)
        if hasattr(cls, "__struct_fields__"):
            return self.msgspec(cls)
        return self.record(cls, variables)


def is_class(cls: Any, module: str, name: str) -> bool:
    """Reports whether this is the class of that name. It is False if the program has not imported the module."""
    return isinstance(cls, type) and cls is getattr(sys.modules.get(module), name, None)


def _container_of(annotation: Any) -> Any:
    try:
        return CONTAINERS.get(annotation)
    except TypeError:  # it can't be hashed
        return None


def _is_subclass(cls: type, module: str, name: str) -> bool:
    base = getattr(sys.modules.get(module), name, None)
    return isinstance(base, type) and issubclass(cls, base)


def _is_unpacked(argument: Any) -> bool:
    """Reports whether an argument of a tuple stands for several, as in ``tuple[int, *Ts]``."""
    origin = getattr(argument, "__origin__", None)
    return getattr(argument, "__unpacked__", False) or getattr(origin, "_name", "") == "Unpack"
