"""Frames: their kinds and flags, their validation and their weight."""

from __future__ import annotations

from typing import Any, Dict

HELLO, CALL, ITEM, END, ERROR, CANCEL, CREDIT, PING, PONG, LOG, BYE, PIECE, STATE = range(1, 14)
KINDS = (
    "",
    "hello",
    "call",
    "item",
    "end",
    "error",
    "cancel",
    "credit",
    "ping",
    "pong",
    "log",
    "bye",
    "piece",
    "state",
)
"""The names of the kinds, indexed by their numbers."""

NO_INPUT, FAILED, NOT_STARTED, KEEP_STATE = 1, 2, 4, 8

Frame = Dict[str, Any]
"""One frame. Its keys are the field names of docs/protocol.md. ``kind`` is always present and a number. An absent field
is zero, empty or false. ``body`` is bytes. In a frame from the host it may also be a bytearray or a memoryview that
nothing else uses. Code that passes a frame on does not use it again."""

BASE_WEIGHT = 256
"""The weight of a frame without its variable parts, in bytes."""

SLACK = 64 << 10
"""How many bytes longer than its weight a frame may be on the wire. This is generous."""

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
    """Returns its argument if that is a frame whose fields have the right types. Fields of unknown names stay in it.

    Raises:
        ValueError: It is not a frame.
    """
    if type(frame) is not dict:
        raise ValueError("not a map")
    type_of = _TYPES.get
    for name, value in frame.items():
        type_ = type_of(name)
        if type(value) is not type_ and type_ is not None:
            raise ValueError(f"its {name} is of type {type(value).__name__}")
        if type_ is int and not 0 <= value <= _LARGEST:
            raise ValueError(f"its {name} is {value!r:.40}")
    if not 0 < frame.get("kind", 0) < len(KINDS):
        raise ValueError(f"of unknown kind {frame.get('kind')!r:.40}")
    meta = frame.get("meta")
    if meta and not (_TEXT.issuperset(map(type, meta)) and _TEXT.issuperset(map(type, meta.values()))):
        raise ValueError("its meta is not of text to text")
    return frame


def weight(frame: Frame) -> int:
    """Returns the weight of a frame in bytes, which the limit applies to. See "Limits" in docs/protocol.md."""
    size = BASE_WEIGHT + len(frame.get("body", b""))
    for name in ("name", "session"):
        if name in frame:
            size += len(frame[name].encode("utf-8", "replace"))
    for key, value in frame.get("meta", {}).items():
        size += 8 + len(key.encode("utf-8", "replace")) + len(value.encode("utf-8", "replace"))
    return size
