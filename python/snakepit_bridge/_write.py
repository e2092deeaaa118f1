"""Writes bytes to a descriptor."""

from __future__ import annotations

import os
from typing import Any, List, Sequence

from ._unpatched import write

_JOINED = 128 << 10  # parts of up to this size in all are copied into one
_AT_ONCE = 512  # parts for one system call; every system takes 1024 (but POSIX demands only 16)


def write_all(descriptor: int, parts: Sequence[bytes]) -> None:
    """Writes all of the parts, even if the system takes only a few bytes at once.

    Raises:
        OSError: The peer is gone.
    """
    if sum(map(len, parts)) <= _JOINED or not hasattr(os, "writev"):
        data = b"".join(parts)
        written = write(descriptor, data)
        if written == len(data):
            return
        parts = (data[written:],)
    rest: List[Any] = list(parts)
    rest.reverse()  # the next part is the last one, so it can be popped
    while rest:
        if len(rest) == 1:
            written = write(descriptor, rest[0])
        else:
            written = os.writev(descriptor, rest[: -_AT_ONCE - 1 : -1])
        while rest and written >= len(rest[-1]):
            written -= len(rest.pop())
        if rest and written:
            rest[-1] = memoryview(rest[-1])[written:]
