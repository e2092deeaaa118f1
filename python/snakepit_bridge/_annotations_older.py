"""Lets Pythons before 3.10 evaluate annotations in the text of newer ones: ``X | Y`` and ``list[X]``."""

from __future__ import annotations

import collections
import collections.abc
import typing
from types import CodeType
from typing import Any, Dict

from ._stdlib import stdlib_first

with stdlib_first():
    import ast

_EITHER, _OF = "__snakepit_either__", "__snakepit_of__"


def compiled(text: str) -> CodeType:
    """Returns the code of an annotation. The names in `helpers` must be known where it runs."""
    tree = ast.fix_missing_locations(_Older().visit(ast.parse(text, mode="eval")))
    return compile(tree, "<annotation>", "eval")


class _Older(ast.NodeTransformer):
    """Replaces ``X | Y`` and ``list[X]`` by calls of helpers."""

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        self.generic_visit(node)
        if not isinstance(node.op, ast.BitOr):
            return node
        return ast.Call(ast.Name(_EITHER, ast.Load()), [node.left, node.right], [])

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        self.generic_visit(node)
        index: Any = node.slice
        if type(index).__name__ == "Index":  # Python 3.8
            index = index.value
        return ast.Call(ast.Name(_OF, ast.Load()), [node.value, index], [])


def _either(left: Any, right: Any) -> Any:
    return typing.Union[left, right]


def _of(generic: Any, parameters: Any) -> Any:
    return _TYPING.get(generic, generic)[parameters]


helpers: Dict[str, Any] = {_EITHER: _either, _OF: _of}
"""The names that compiled annotations use."""


_TYPING: Dict[Any, Any] = {
    list: typing.List,
    set: typing.Set,
    frozenset: typing.FrozenSet,
    tuple: typing.Tuple,
    dict: typing.Dict,
    type: typing.Type,
    collections.deque: typing.Deque,
    collections.defaultdict: typing.DefaultDict,
    collections.OrderedDict: typing.OrderedDict,
    collections.abc.Callable: typing.Callable,
}
for _name in ("Sequence", "MutableSequence", "Iterable", "Collection", "Mapping", "MutableMapping", "MutableSet"):
    _TYPING[getattr(collections.abc, _name)] = getattr(typing, _name)
_TYPING[collections.abc.Set] = typing.AbstractSet
