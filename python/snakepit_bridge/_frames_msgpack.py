"""Frames as MessagePack maps, by the msgpack package."""

from __future__ import annotations

from struct import Struct
from typing import List, Optional, Union

from ._codec_msgpack import load_msgpack
from ._frames import SLACK, Frame, check, weight

_BODY = Struct(">5scI")
_COPIED = 64 << 10  # bodies up to this size are copied into their frame


class MsgpackFrames:
    """Writes and reads frames as maps. One thread writes at a time, and one reads.

    Attributes:
        max_frame: The largest frame that `parse` takes, as measured under "Limits" of docs/protocol.md.
    """

    def __init__(self, max_frame: int) -> None:
        """Raises `Unavailable` if the msgpack package is missing."""
        module = load_msgpack()
        self._unpackb = module.unpackb
        self._pack = module.Packer().pack
        self.max_frame = max_frame

    def dump(self, frame: Frame) -> List[bytes]:
        """Returns the map in one part or two, of which the second is a large body. The body is taken out of the frame then."""
        body: Optional[bytes] = frame.get("body")
        if body is None or len(body) <= _COPIED:
            return [self._pack(frame)]
        del frame["body"]
        packed = self._pack(frame)  # a map of fewer than 16 entries, whose first byte has their number
        return [bytes((packed[0] + 1,)) + packed[1:] + _BODY.pack(b"\xa4body", b"\xc6", len(body)), body]

    def parse(self, data: Union[bytes, memoryview]) -> Frame:
        """Returns the frame that is the whole of the data. Raises ValueError if it is none or too large."""
        try:
            frame = check(self._unpackb(data))
            if len(data) + SLACK > self.max_frame and weight(frame) > self.max_frame:
                raise ValueError(f"more than {self.max_frame} bytes")
            return frame
        except Exception as exc:  # the library's errors are of many types
            raise ValueError(f"the host sent what is not a frame ({exc}): {bytes(data[:64])!r}") from None
