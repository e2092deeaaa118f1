"""Runs the user's script as Python itself would run it."""

from __future__ import annotations

import io
import os
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import Any, Dict, Sequence

from ._worker import NoWorker


def prepare(script: str, args: Sequence[str], here: str, original: Sequence[str]) -> None:
    """Gives the script the sys.argv and sys.path that it would have; the bridge's own directory comes second.

    It stays there for processes that multiprocessing starts, which inherit sys.path.
    """
    sys.argv[:] = [script, *args]
    sys.path[:] = [os.path.dirname(os.path.abspath(script)), here, *original]


def run_script(script: str) -> Dict[str, Any]:
    """Runs the script as a fresh module ``__main__``, so that pickle and multiprocessing find there what it defines, and returns its
    namespace.

    Raises:
        NoWorker: It is no source.
    """
    path = os.path.abspath(script)
    with io.open_code(path) as file:
        source = file.read()
    if b"\0" in source:  # of which Python's own error says less
        raise NoWorker(f"{script} is not Python source but a binary file: name the worker's .py file")
    code = compile(source, path, "exec", dont_inherit=True)
    module = ModuleType("__main__")
    module.__file__ = path
    module.__loader__ = SourceFileLoader("__main__", path)
    module.__builtins__ = __builtins__  # type: ignore[attr-defined]
    sys.modules["__main__"] = module
    exec(code, module.__dict__)  # this is the worker's program, which the bridge is for
    return module.__dict__
