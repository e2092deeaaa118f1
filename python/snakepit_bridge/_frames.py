"""What the transports share: which dict is a frame, what it weighs, and how bytes leave."""

from __future__ import annotations

import os
from typing import Any, List, Sequence

from ._native import write
from .transport import KINDS, Frame

SLACK = 64 << 10
"""How much longer than its weight a frame may be on the wire; generous."""

_LARGEST = 2**53 - 1
_TYPES = {
    "kind": int,
    "flags": int,
    "id": int,
    "parent": int,
    "ttl": int,
    "items": int,
    "bytes": int,
    "name": str,
    "session": str,
    "meta": dict,
    "body": bytes,
}
_TEXT = {str}


def check(frame: Any) -> Frame:
    """Returns what is a frame by its fields' types. Raises ValueError if it is none; fields of unknown names are left in it."""
    if type(frame) is not dict:
        raise ValueError("not a map")
    types = _TYPES
    for name, value in frame.items():
        kind = types.get(name)
        if kind is int:
            if type(value) is not int or not 0 <= value <= _LARGEST:
                raise ValueError(f"its {name} is {value!r:.40}")
        elif kind is not None and type(value) is not kind:
            raise ValueError(f"its {name} is of type {type(value).__name__}")
    if not 0 < frame.get("kind", 0) < len(KINDS):
        raise ValueError(f"of unknown kind {frame.get('kind')!r:.40}")
    meta = frame.get("meta")
    if meta and not (_TEXT.issuperset(map(type, meta)) and _TEXT.issuperset(map(type, meta.values()))):
        raise ValueError("its meta is not of text to text")
    return frame


def weight(frame: Frame) -> int:
    """Returns what the frame weighs against the limit, by the section "Limits" of docs/protocol.md."""
    size = 256 + len(frame.get("body", b""))
    for name in ("name", "session"):
        if name in frame:
            size += len(frame[name].encode("utf-8", "replace"))
    for key, value in frame.get("meta", {}).items():
        size += 8 + len(key.encode("utf-8", "replace")) + len(value.encode("utf-8", "replace"))
    return size


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
