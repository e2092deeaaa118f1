"""The commands that every worker has."""

from __future__ import annotations

from typing import Any, Callable, Dict, List

from ._context import Context
from ._errors import attempt, shown
from ._stdlib import stdlib_first


def describe(ctx: Context) -> List[Dict[str, Any]]:
    """Describes the worker's commands."""
    commands = list(ctx._runner.commands.values())
    described = [describe_function(command.name, command.function, command.stream) for command in commands]
    with stdlib_first():
        from . import _schema
    for one, schema in zip(described, _schema.schemas(commands)):
        one["schema"] = schema
    return described


def forget(ctx: Context) -> bool:
    """Drops the state of the call's session. Returns whether there was any."""
    return ctx._runner.sessions.forget(ctx._call.frame.get("session", ""))


_STARS = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}

COMMANDS: Dict[str, Callable[..., Any]] = {"snakepit.describe": describe, "snakepit.forget": forget}


def describe_function(name: str, function: Callable[..., Any], stream: bool) -> Dict[str, Any]:
    """Returns the description of one command for snakepit.describe. docs/protocol.md defines its form."""
    with stdlib_first():
        import inspect
    described: Dict[str, Any] = {
        "name": name,
        "doc": attempt(None, inspect.getdoc, function) or "",
        "stream": stream,
        "params": [],
        "returns": "",
    }
    try:
        signature = inspect.signature(function)
    except Exception:  # the function is written in C, or the program's code raised
        return described
    empty = inspect.Parameter.empty
    for parameter in signature.parameters.values():
        if parameter.name == "ctx":
            continue
        param: Dict[str, Any] = {
            "name": _STARS.get(parameter.kind.name, "") + parameter.name,
            "type": _annotation(parameter.annotation),
        }
        if parameter.default is not empty:
            scalar = parameter.default is None or type(parameter.default) in (bool, int, float, str)
            param["default"] = parameter.default if scalar else shown(parameter.default)
        variadic = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        param["required"] = parameter.default is empty and not variadic
        described["params"].append(param)
    described["returns"] = _annotation(signature.return_annotation)
    return described


def usage(name: str, function: Callable[..., Any]) -> str:
    """Returns a command's signature and the first line of its docstring."""
    with stdlib_first():
        import inspect
    try:
        signature = inspect.signature(function)
        shown = [p for p in signature.parameters.values() if p.name not in ("ctx", "self")]
        text = f"{name}{signature.replace(parameters=shown)}"
    except (TypeError, ValueError):
        text = f"{name}(...)"
    lines = (inspect.getdoc(function) or "").splitlines()
    return f"{text}\n      {lines[0]}" if lines else text


def _annotation(annotation: Any) -> str:
    import inspect

    if annotation is inspect.Parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else attempt("", inspect.formatannotation, annotation)
