"""Late imports of the standard library, for which start-up has no time."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import Iterator

_STDLIB = os.path.dirname(os.path.abspath(os.__file__))


def _is_stdlib(entry: str) -> bool:
    return entry == _STDLIB or entry == os.path.join(_STDLIB, "lib-dynload")


@contextmanager
def stdlib_first() -> Iterator[None]:
    """Inside, what the bridge imports is the standard library's, and not a file of that name beside the user's script.

    Nothing leaves sys.path meanwhile, so another thread's import finds what it looks for.
    """
    saved = sys.path[:]
    ordered = sorted(saved, key=lambda entry: not _is_stdlib(entry))
    sys.path[:] = ordered
    try:
        yield
    finally:
        if sys.path == ordered:
            sys.path[:] = saved
