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
    """Sets sys.argv and sys.path as Python would for the script, but with the bridge's own directory second.

    That directory stays there for the processes of multiprocessing, which inherit sys.path.
    """
    sys.argv[:] = [script, *args]
    sys.path[:] = [os.path.dirname(os.path.abspath(script)), here, *original]


def run_script(script: str) -> Dict[str, Any]:
    """Runs the script as a new module ``__main__`` and returns its namespace.

    pickle and multiprocessing look for the script's definitions in ``__main__``.

    Raises:
        NoWorker: The file is not Python source.
    """
    path = os.path.abspath(script)
    with io.open_code(path) as file:
        source = file.read()
    if b"\0" in source:  # Python's own error says less
        raise NoWorker(f"{script} is not Python source but a binary file: name the worker's .py file")
    code = compile(source, path, "exec", dont_inherit=True)
    module = ModuleType("__main__")
    module.__file__ = path
    module.__loader__ = SourceFileLoader("__main__", path)
    module.__builtins__ = __builtins__  # type: ignore[attr-defined]
    sys.modules["__main__"] = module
    exec(code, module.__dict__)  # the bridge is there to run this program
    return module.__dict__
