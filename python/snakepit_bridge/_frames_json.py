"""Frames as lines of JSON, for jsonstdio. The header is an object. If there is a body, a tab and the body follow."""

from __future__ import annotations

import json
from typing import List

from ._codec_json import dump
from ._frames import BASE_WEIGHT, KINDS, Frame, check, weight

_NUMBERS = {name: number for number, name in enumerate(KINDS) if number}
_PREFIXES = tuple(f'{{"kind":"{name}","id":'.encode() for name in KINDS)
_USUAL = {"kind", "id", "body"}
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


class JsonFrames:
    """Turns frames into lines and back. Any number of threads may use one at once.

    Attributes:
        max_frame: The largest weight of a frame that `parse` accepts, in bytes. See "Limits" in docs/protocol.md.
    """

    def __init__(self, max_frame: int) -> None:
        self.max_frame = max_frame

    def dump(self, frame: Frame) -> List[bytes]:
        """Returns a line in parts, so that a large body is not copied. The last part is the line feed."""
        if len(frame) <= 3 and "id" in frame and frame.keys() <= _USUAL:
            header = b"%b%d}" % (_PREFIXES[frame["kind"]], frame["id"])
        else:
            fields = {name: value for name, value in frame.items() if name != "body"}
            fields["kind"] = KINDS[frame["kind"]]
            header = dump(fields)
        body = frame.get("body")
        return [header, b"\t", body, b"\n"] if body else [header, b"\n"]

    def parse(self, line: bytes) -> Frame:
        """Returns the frame of a line without its line feed.

        Raises:
            ValueError: The line is not a frame, or the frame is too large.
        """
        header, _, body = line.partition(b"\t")
        try:
            text = header.decode().lstrip()
            frame, end = _scan(text, 0)
            if end != len(text) and text[end:].strip():
                raise ValueError("more than one value")
            if type(frame) is dict:
                frame["kind"] = _NUMBERS.get(frame.get("kind", ""), 0)
                if "body" in frame:
                    raise ValueError("a body in the header")
                if body:
                    frame["body"] = body
            check(frame)
            if 2 * len(line) + BASE_WEIGHT > self.max_frame and weight(frame) > self.max_frame:
                raise ValueError(f"more than {self.max_frame} bytes")
        except (ValueError, TypeError, StopIteration, RecursionError) as exc:
            why = "no JSON" if isinstance(exc, StopIteration) else str(exc)
            raise ValueError(f"the host sent what is not a frame ({why}): {line[:64]!r}") from None
        return frame  # type: ignore[no-any-return]
