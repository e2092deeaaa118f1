"""The modules of the package have an order. Each imports only those before it, at its load and in its functions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "snakepit_bridge"
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def imported(module, tree):
    """Yields the modules of the package that a module imports anywhere but for its type checker."""
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = [*module.split(".")[: -node.level], *filter(None, [node.module])]
        elif (node.module or "").split(".")[0] == "snakepit_bridge":
            base = node.module.split(".")[1:]
        else:
            continue
        for alias in node.names:
            for name in (".".join([*base, alias.name]), ".".join(base), ".".join([*base, "__init__"])):
                if name in MODULES:
                    yield name
                    break


def circle(graph):
    """Returns the modules of a circle, or an empty list."""
    done, path = set(), []

    def visit(module):
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        path.append(module)
        for other in sorted(graph[module]):
            found = visit(other)
            if found:
                return found
        done.add(path.pop())
        return []

    for module in sorted(graph):
        found = visit(module)
        if found:
            return found
    return []


def test_there_is_an_order():
    graph = {module: set(imported(module, ast.parse(path.read_text()))) - {module} for module, path in MODULES.items()}
    assert graph["_runner"] >= {"_calls", "_errors", "transport"}  # so it sees load-time imports
    assert "_runner" in graph["_server"]  # and those in functions
    assert not circle(graph)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from ._a import x", ["_errors"]),
        ("def f():\n    from . import _a", ["_errors"]),
        ("if TYPE_CHECKING:\n    from ._a import x", []),
    ],
)
def test_a_circle_is_found(source, names):
    source = source.replace("_a", "_errors")
    assert list(imported("_stdlib", ast.parse(source))) == names
    graph = {"_stdlib": set(names), "_errors": {"_stdlib"}}
    assert circle(graph) == (["_errors", "_stdlib"] if names else [])


# What these modules run is the worker's own program: its script, its annotations, and a copy of a standard module.
RUN_THE_PROGRAM = {"_loader", "_annotations", "_annotations_older", "_unpatched"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_from_the_wire_is_run(module):
    """No module unpickles, and only those that run the worker's own program evaluate text."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            paths = [getattr(node, "module", "") or "", *(alias.name for alias in node.names)]
            names = {path.split(".")[0] for path in paths}
            assert not names & {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml"}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and module not in RUN_THE_PROGRAM:
            assert node.func.id not in {"eval", "exec", "compile", "__import__"}
