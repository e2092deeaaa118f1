"""How bytes leave a transport with a descriptor."""

from __future__ import annotations

import os
from typing import Any, List, Sequence

from ._native import write

_JOINED = 128 << 10  # parts up to this size together are copied into one
_AT_ONCE = 512  # no system takes fewer than 1024 (but POSIX allows 16)


def write_all(descriptor: int, parts: Sequence[bytes]) -> None:
    """Writes the parts, however few bytes the system takes at once. Raises OSError if the peer is gone."""
    if sum(map(len, parts)) <= _JOINED or not hasattr(os, "writev"):
        parts = (b"".join(parts),)
    rest: List[Any] = list(parts)
    rest.reverse()  # so that the next one can be popped
    while rest:
        if len(rest) == 1:
            written = write(descriptor, rest[0])
        else:
            written = os.writev(descriptor, rest[: -_AT_ONCE - 1 : -1])
        while rest and written >= len(rest[-1]):
            written -= len(rest.pop())
        if rest and written:
            rest[-1] = memoryview(rest[-1])[written:]
