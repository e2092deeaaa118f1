"""Frames as MessagePack maps. They need the package msgpack."""

from __future__ import annotations

from struct import Struct
from typing import Any, List, Optional, Union

from ._codec import Parts
from ._codec_msgpack import load_msgpack
from ._frames import SLACK, Frame, check, weight

_BODY = Struct(">6sI")
_LARGE_BODY = b"\xa4body\xc6"  # the key and the code of a length of four bytes
_HEAD = 256  # the first part of a frame is shorter, unless its name or metadata are long
_COPIED = 64 << 10  # bodies up to this size are copied into their frame


class MsgpackFrames:
    """Turns frames into maps and back. One thread at a time may call `dump`, and one `parse`.

    Attributes:
        max_frame: The largest weight of a frame that `parse` accepts, in bytes. See "Limits" in docs/protocol.md.
    """

    def __init__(self, max_frame: int) -> None:
        """Raises `Unavailable` if the msgpack package is missing, too old or broken."""
        module = load_msgpack()
        self._unpackb = module.unpackb
        self._pack = module.Packer().pack
        self.max_frame = max_frame

    def dump(self, frame: Frame) -> List[bytes]:
        """Returns the map in one part. A large body is removed from the frame, and is the other parts."""
        body: Any = frame.get("body")
        if body is None or len(body) <= _COPIED:
            return [self._pack(frame)]
        del frame["body"]
        packed = self._pack(frame)  # a map of fewer than 16 entries: its first byte holds their number
        head = bytes((packed[0] + 1,)) + packed[1:] + _BODY.pack(_LARGE_BODY, len(body))
        return [head, *body.parts] if type(body) is Parts else [head, body]

    def parse(self, data: Union[bytes, memoryview], keep: bool = False) -> Frame:
        """Returns the frame of the whole data.

        Args:
            data: The data.
            keep: A large body may be a view of the data.

        Raises:
            ValueError: The data is not a frame, or the frame is too large.
        """
        try:
            frame = (self._cut(memoryview(data)) if keep else None) or check(self._unpackb(data))
            if len(data) + SLACK > self.max_frame and weight(frame) > self.max_frame:
                raise ValueError(f"more than {self.max_frame} bytes")
            return frame
        except Exception as exc:  # the library's errors are of many types
            raise ValueError(f"the host sent what is not a frame ({exc}): {bytes(data[:64])!r}") from None

    def _cut(self, data: memoryview) -> Optional[Frame]:
        """Returns the frame without a copy of its body. Returns None if that is not large or not the last entry."""
        head = bytes(data[:_HEAD])
        at = head.find(_LARGE_BODY)
        if at < 0:
            head = bytes(data[:_COPIED])
            at = head.find(_LARGE_BODY)
        begin = at + _BODY.size
        if at < 0 or not 0x80 < head[0] < 0x90 or len(data) - begin != int.from_bytes(head[begin - 4 : begin], "big"):
            return None
        try:
            frame = check(self._unpackb(bytes((head[0] - 1,)) + head[1:at]))
        except Exception:  # the bytes that look like the body's beginning are in another entry
            return None
        if "body" in frame:
            return None
        frame["body"] = data[begin:]
        return frame
