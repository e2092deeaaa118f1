"""Frames as MessagePack maps. They need the package msgpack."""

from __future__ import annotations

from struct import Struct
from typing import List, Optional, Union

from ._codec_msgpack import load_msgpack
from ._frames import SLACK, Frame, check, weight

_BODY = Struct(">5scI")
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
        """Returns the map in one part. A large body is removed from the frame and is a second part."""
        body: Optional[bytes] = frame.get("body")
        if body is None or len(body) <= _COPIED:
            return [self._pack(frame)]
        del frame["body"]
        packed = self._pack(frame)  # a map of fewer than 16 entries: its first byte holds their number
        return [bytes((packed[0] + 1,)) + packed[1:] + _BODY.pack(b"\xa4body", b"\xc6", len(body)), body]

    def parse(self, data: Union[bytes, memoryview]) -> Frame:
        """Returns the frame of the whole data.

        Raises:
            ValueError: The data is not a frame, or the frame is too large.
        """
        try:
            frame = check(self._unpackb(data))
            if len(data) + SLACK > self.max_frame and weight(frame) > self.max_frame:
                raise ValueError(f"more than {self.max_frame} bytes")
            return frame
        except Exception as exc:  # the library's errors are of many types
            raise ValueError(f"the host sent what is not a frame ({exc}): {bytes(data[:64])!r}") from None
