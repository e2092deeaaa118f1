"""The transport msgpack. Each frame follows its length, on a socket that this process has inherited from the host."""

from __future__ import annotations

import socket
from struct import Struct
from typing import List, Sequence

from ._frames import PIECE, SLACK
from ._memory import Spare
from .transport import Frame, Launch, MsgpackFrames, Transport, Unavailable, write_all

_LENGTH = Struct(">I")
_BUFFER = 256 << 10
_KIND = 10  # where the kind of a frame is, as Snakepit's own host encodes it


class MsgpackSocket(Transport):
    """MessagePack frames over an inherited stream socket.

    A signal handler that raised inside of `read` or `write` could lose a frame, or cut one in half on the wire. The
    runner's handlers do not raise while code of this package is on the stack.

    Attributes:
        encoding: Turns frames into bytes and back. Its max_frame is the largest weight that is accepted.
    """

    codecs = ("msgpack", "json")
    takes_parts = True

    def __init__(self, launch: Launch) -> None:
        self.encoding = MsgpackFrames(launch.max_frame)
        if launch.conn_fd is None:
            raise Unavailable("SNAKEPIT_CONN_FD is not set")
        try:
            self._socket = socket.socket(fileno=launch.conn_fd)
            self._socket.set_inheritable(False)
            self._socket.setblocking(True)
        except OSError as exc:
            raise Unavailable(f"descriptor {launch.conn_fd} of SNAKEPIT_CONN_FD is not a socket: {exc}") from None
        self._usual = memoryview(bytearray(_BUFFER))
        self._view = self._usual
        self._spare = Spare()  # for frames that do not fit there
        self._start = self._end = 0  # of the data in the buffer
        self._closed = self._reading = self._writing = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> List[Frame]:
        self._reading = True
        try:
            while not self._closed:
                if self._end:
                    frames = self._received()
                    if frames:
                        return frames
                try:
                    size = self._socket.recv_into(self._view[self._end :] if self._end else self._view)
                except ConnectionResetError:  # the host has closed without reading everything
                    break
                except OSError:
                    if self._closed:
                        break
                    raise
                if not size:
                    if self._end > self._start and not self._closed:
                        raise ValueError(f"the host's connection ended inside of a frame: {self._shown()!r}")
                    break
                self._end += size
            return []
        finally:
            self._reading = False
            self._close_if_left()

    def _received(self) -> List[Frame]:
        """Takes the complete frames out of the buffer. If there is none, makes room for the rest of the next one."""
        if self._end == len(self._view) and self._view is not self._usual:
            return [self._large()]
        frames: List[Frame] = []
        at, end, view = self._start, self._end, self._view
        wanted = 0
        while end - at >= 4:
            (size,) = _LENGTH.unpack_from(view, at)
            if not 0 < size <= self.encoding.max_frame + SLACK:
                raise ValueError(f"the host sent what is not a frame (of {size} bytes): {self._shown()!r}")
            wanted = 4 + size
            if end - at < wanted:
                break
            is_piece = wanted > _KIND and view[at + _KIND] == PIECE
            frame = self.encoding.parse(view[at + 4 : at + wanted], is_piece)
            if is_piece and frame["kind"] != PIECE and "body" in frame:
                frame["body"] = bytes(frame["body"])
            frames.append(frame)
            at += wanted
            wanted = 0
        self._start = at
        if at == end:
            self._start = self._end = 0
        elif not frames:
            self._make_room(wanted)
        return frames

    def _large(self) -> Frame:
        """Takes the frame out of the memory that it has for itself."""
        frame = self._view[4:]
        self._view = self._usual
        self._end = 0
        return self.encoding.parse(frame, True)

    def _make_room(self, wanted: int) -> None:
        start, size = self._start, self._end - self._start
        if wanted > len(self._view):
            rest = self._view[start : self._end]
            self._view = self._spare.view(wanted)  # for this frame alone: there is no room for anything behind it
            self._view[:size] = rest
        elif start + max(wanted, _BUFFER // 2) > len(self._view):
            self._view[:size] = bytes(self._view[start : self._end])
        else:
            return
        self._start, self._end = 0, size

    def _shown(self) -> bytes:
        return bytes(self._view[self._start : min(self._end, self._start + 64)])

    def write(self, frames: Sequence[Frame]) -> None:
        parts: List[bytes] = []
        for frame in frames:
            packed = self.encoding.dump(frame)
            parts += (_LENGTH.pack(sum(map(len, packed))), *packed)
        self._writing = True
        try:
            if self._closed:
                raise BrokenPipeError("the connection is closed")
            write_all(self._socket.fileno(), parts)
        finally:
            self._writing = False
            self._close_if_left()

    def close(self) -> None:
        self._closed = True
        try:
            # This ends a read or a write in another thread. The host still gets what was written.
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._close_if_left()

    def _close_if_left(self) -> None:
        # The descriptor is closed only when no thread is inside of read or write with it, because its number may be
        # reused at once.
        if self._closed and not (self._reading or self._writing):
            self._socket.close()

    def close_in_child(self) -> None:
        self._closed = True
        self._socket.close()
