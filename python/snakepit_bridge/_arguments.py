"""Converts the arguments of a call by the annotations of its function, and explains arguments that do not fit.

A command without annotations does not import this module until a call fails. `_compiler` says what each annotation
demands.
"""

from __future__ import annotations

from functools import partial
from types import FunctionType, MethodType
from typing import Any, Dict, FrozenSet, Mapping, Optional, Sequence, Tuple

from ._annotations import scope_of_function
from ._answers import BadArguments
from ._command import Command, Convert, innermost, layers
from ._compiler import Compiler
from ._misfit import Misfit, got, listed, suggestion
from ._rule import Check, MaybeRule, Rule, optional

_VAR_ARGS, _VAR_KWARGS = 0x04, 0x08  # code flags of the module inspect


def prepare(command: Command) -> None:
    """Compiles what converts a command's arguments. From then on, a command that needs no conversion is unchecked."""
    command.convert = _compile(command.function)
    if command.convert is None:
        command.checked = False


def _compile(function: Any) -> Optional[Convert]:
    owner = type(function.__self__) if isinstance(function, MethodType) else None
    function, bound = innermost(function)
    if type(function) is not FunctionType:
        return None
    code = function.__code__
    end = code.co_argcount + code.co_kwonlyargcount
    names = [name for name in code.co_varnames[bound:end] if name != "ctx"]
    compiler, scope = Compiler(), scope_of_function(function, owner)
    defaults = _defaults(function)
    annotations = function.__annotations__

    def rule_of(name: str) -> MaybeRule:
        if name not in annotations:
            return None
        rule = compiler.tried(annotations[name], scope)
        return optional(rule) if name in defaults and defaults[name] is None else rule

    rules = {name: rule_of(name) for name in names}
    places = [name for name in code.co_varnames[bound : code.co_argcount] if name != "ctx"][:1]
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


def refuse(command: Command, exc: TypeError, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raises `BadArguments` for arguments that the command's function does not take. They include the context.

    It returns if the function is not written in Python: such a function may have run.
    """
    args = args[1:] if command.ctx else args
    kwargs = {name: value for name, value in kwargs.items() if command.ctx is None or name != "ctx"}
    function, bound = next(layers(command.function))
    while isinstance(function, partial):
        args, kwargs = (*function.args, *args), {**function.keywords, **kwargs}
        function, bound = next(layers(function.func))
    if type(function) is FunctionType:
        raise BadArguments(
            f"{command.name}() {_misfit(function, bound, args, kwargs) or f'does not take these arguments: {exc}'}"
        )


def _misfit(function: Any, bound: bool, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Returns why a function does not take these arguments besides its context, or "" if that is not clear."""
    code = function.__code__
    end = code.co_argcount + code.co_kwonlyargcount
    by_place = [name for name in code.co_varnames[bound : code.co_argcount] if name != "ctx"]
    names = [name for name in code.co_varnames[bound:end] if name != "ctx"]
    defaults = _defaults(function)
    taken = by_place[: len(args)]
    missing = [name for name in names if name not in kwargs and name not in taken and name not in defaults]
    if args and not names:
        return f"takes no arguments, and got {got(args[-1])}"
    if args and (missing or len(args) > len(by_place)):
        needed = [name for name in names if name not in defaults] or names
        return f"takes its arguments by name: send a map with {listed(needed)}, not {got(args[-1])}"
    if not code.co_flags & _VAR_KWARGS:
        unexpected = [name for name in kwargs if name not in names]
        if unexpected:
            hint = suggestion(unexpected[0], [name for name in names if name not in kwargs])
            return f"got an unexpected argument {listed(unexpected[:1])}{hint}"
    fixed = [name for name in code.co_varnames[bound : code.co_posonlyargcount] if name in kwargs]
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
