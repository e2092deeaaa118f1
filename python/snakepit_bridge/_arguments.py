"""Converts the arguments of a call by the annotations of its function, and explains arguments that do not fit.

A command without annotations does not import this module until a call fails. `_compiler` says what each annotation
demands.
"""

from __future__ import annotations

from functools import partial
from types import FunctionType
from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

from ._annotations import scope_of_function
from ._answers import BadArguments
from ._command import Command, Convert, layers, signer
from ._compiler import Compiler
from ._errors import text_of
from ._misfit import Misfit, got, listed, unexpected
from ._rule import Check, MaybeRule, Rule, optional

_VAR_ARGS, _VAR_KWARGS = 0x04, 0x08  # code flags of the module inspect


def prepare(command: Command) -> None:
    """Compiles what converts a command's arguments. From then on, a command that needs no conversion is unchecked."""
    command.convert = _compile(command.function)
    if command.convert is None:
        command.checked = False


def _compile(function: Any) -> Optional[Convert]:
    function, given, owner = signer(function)
    if type(function) is not FunctionType:
        return None
    code = function.__code__
    end = code.co_argcount + code.co_kwonlyargcount
    places, names = _names(code, given)
    compiler, scope = Compiler(), scope_of_function(function, owner)
    defaults = _defaults(function)
    annotations = function.__annotations__

    def rule_of(name: str) -> MaybeRule:
        if name not in annotations:
            return None
        rule = compiler.tried(annotations[name], scope)
        return optional(rule) if name in defaults and defaults[name] is None else rule

    rules = {name: rule_of(name) for name in names}
    by_place = rules[places[0]] if places else None
    if code.co_flags & _VAR_ARGS:
        if not places:
            places = [code.co_varnames[end]]
            by_place = rule_of(places[0])
        end += 1
    rest = rule_of(code.co_varnames[end]) if code.co_flags & _VAR_KWARGS else None
    checks = [(name, rule.exact, rule.convert) for name, rule in rules.items() if rule is not None]
    if not checks and by_place is None and rest is None:
        return None
    place = places[0] if places else ""
    return _converter(checks, (place, by_place), None if rest is None else (frozenset(names), rest))


def _converter(
    checks: Sequence[Check], by_place: Tuple[str, MaybeRule], rest: Optional[Tuple[FrozenSet[str], Rule]]
) -> Convert:
    """Returns what converts the arguments of one call.

    Args:
        checks: The rules of the parameters.
        by_place: The name and the rule of the parameter that gets a positional argument.
        rest: The names of all parameters, and the rule for arguments of other names.
    """
    place, first = by_place

    def convert(args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Tuple[Any, ...]:
        name = place
        try:
            if args:
                if first is not None and type(args[0]) not in first.exact:
                    args = (first.convert(args[0]),)
                return args
            for name, exact, change in checks:
                if name in kwargs and type(kwargs[name]) not in exact:
                    kwargs[name] = change(kwargs[name])
            if rest is not None:
                names, rule = rest
                for name in kwargs:
                    if name not in names:
                        kwargs[name] = rule.convert(kwargs[name])
        except Misfit as exc:
            exc.path.append(name)
            raise BadArguments(exc.message()) from exc.__cause__
        except RecursionError:
            raise BadArguments(f"{name}: nested too deeply for its annotation") from None
        return args

    return convert


def _names(code: Any, given: int) -> Tuple[List[str], List[str]]:
    """Returns the names of the parameters that take a place, and those of all parameters.

    The first ones have their arguments already. The context does not count.
    """
    places = [name for name in code.co_varnames[given : code.co_argcount] if name != "ctx"]
    by_name = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    return places, [*places, *(name for name in by_name if name != "ctx")]


def refuse(command: Command, exc: TypeError, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raises `BadArguments` for arguments that the command's function does not take. They include the context.

    It returns if the function is not written in Python: such a function may have run.
    """
    args, kwargs = _without_context(command, args, kwargs)
    function, bound = next(layers(command.function))
    given = 0
    while isinstance(function, partial):
        given += len(function.args)
        kwargs = {**function.keywords, **kwargs}
        function, bound = next(layers(function.func))
    if type(function) is FunctionType:
        why = _misfit(function, bound + given, args, kwargs) or f"does not take these arguments: {exc}"
        raise BadArguments(f"{command.name}() {why}")


def refuse_inside(
    command: Command, exc: TypeError, raised_in: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Raises `BadArguments` if a decorator has passed on arguments that the function it wraps does not take.

    The decorator has run. It returns for any other error, and if the decorator has changed the arguments.

    Args:
        command: The command.
        exc: The exception.
        raised_in: The code that raised it.
        args: The arguments of the decorator's function, with the context.
        kwargs: The named ones.
    """
    args, kwargs = _without_context(command, args, kwargs)
    found = list(layers(command.function))
    for (decorator, _), (function, bound) in zip(found, found[1:]):
        if getattr(decorator, "__code__", None) is raised_in and type(function) is FunctionType:
            called = text_of(exc).partition("() ")[0]
            why = _misfit(function, bound, args, kwargs)
            if why and called in (function.__qualname__, function.__name__):
                refused = BadArguments(f"{command.name}() {why}")
                refused.flags = 0
                raise refused


def _without_context(
    command: Command, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Tuple[Sequence[Any], Dict[str, Any]]:
    taken = {name: value for name, value in kwargs.items() if command.ctx is None or name != "ctx"}
    return (args[1:] if command.ctx else args), taken


def _misfit(function: Any, given: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Returns why a function does not take these arguments besides its context, or "" if that is not clear.

    The first parameters have their arguments already.
    """
    code = function.__code__
    by_place, names = _names(code, given)
    defaults = _defaults(function)
    taken = by_place[: len(args)]
    missing = [name for name in names if name not in kwargs and name not in taken and name not in defaults]
    too_many = len(args) > len(by_place) and not code.co_flags & _VAR_ARGS
    if too_many and not names:
        return f"takes no arguments, and got {got(args[-1])}"
    if too_many or (args and missing):
        needed = [name for name in names if name not in defaults] or names
        return f"takes its arguments by name: send a map with {listed(needed)}, not {got(args[-1])}"
    if not code.co_flags & _VAR_KWARGS:
        wrong = unexpected("argument", kwargs, names)
        if wrong:
            return f"got an {wrong}"
    fixed = [name for name in code.co_varnames[given : code.co_posonlyargcount] if name in kwargs]
    if fixed:
        return f"takes {listed(fixed)} by its place: send the value alone, not in a map"
    if missing:
        return f"missing argument{'s' if len(missing) > 1 else ''} {listed(missing)}"
    return ""


def _defaults(function: Any) -> Dict[str, Any]:
    code = function.__code__
    values = function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(values) : code.co_argcount]
    return {**dict(zip(names, values)), **(function.__kwdefaults__ or {})}
