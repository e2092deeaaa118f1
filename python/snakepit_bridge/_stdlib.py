"""Late imports of the standard library. These modules are not imported at the start, because that takes time."""

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
    """Puts the standard library first in sys.path.

    Inside of ``with``, the bridge imports modules of the standard library, even if there are files of the same names
    beside the user's script. No entry leaves sys.path meanwhile, so imports in other threads find their modules.
    """
    saved = sys.path[:]
    ordered = sorted(saved, key=lambda entry: not _is_stdlib(entry))
    sys.path[:] = ordered
    try:
        yield
    finally:
        if sys.path == ordered:
            sys.path[:] = saved
