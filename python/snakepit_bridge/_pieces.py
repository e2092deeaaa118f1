"""Large bodies in pieces, so that other frames need not wait for the whole of one: a ping, a cancel, another call."""

from __future__ import annotations

from collections import deque
from typing import Any, Deque, Dict, Iterator, List, Union

from ._codec import Parts
from ._errors import ProtocolError
from ._frames import CALL, CANCEL, END, ERROR, ITEM, PIECE, STATE, Frame
from ._memory import memory

FEATURE = "pieces"
"""The feature that a side announces in its hello if it takes pieces."""

SPLIT_ABOVE = 24 << 20
"""A frame with a larger body is split. A smaller one takes some milliseconds."""

JOINED = frozenset((CALL, ITEM, END, ERROR, STATE))
"""The kinds of frames whose bodies may come in pieces."""

_ORDERED = JOINED | {CANCEL}  # the kinds that do not overtake others of their call
_PIECE = 240 << 10  # a piece and its header fit into 256 KiB, which a peer may read at once
_AT_ONCE = 4  # pieces for one write
_COPIED = 64 << 10  # the last piece of a body is joined if it is not larger


class Splitter:
    """Splits large frames of the outbox. One thread at a time uses it.

    It is true while pieces are left.
    """

    def __init__(self, takes_parts: bool) -> None:
        """Makes an empty one. If takes_parts is false, each piece is one bytes object."""
        self._takes_parts = takes_parts
        self._splits: Deque[Iterator[Frame]] = deque()  # the frames that are being sent in pieces
        self._behind: Dict[int, List[Frame]] = {}  # by call, the frames that wait for these

    def __bool__(self) -> bool:
        return bool(self._splits)

    def clear(self) -> None:
        """Drops all frames."""
        self._splits.clear()
        self._behind.clear()

    def take(self, frames: Deque[Frame]) -> List[Frame]:
        """Takes all frames out of a deque. Returns those to write next, and the first pieces of large ones."""
        batch: List[Frame] = []
        for _ in range(len(frames)):
            self._add(batch, frames.popleft())
        return batch

    def pieces(self) -> List[Frame]:
        """Returns the next pieces, and the frames that have waited for the last of them."""
        batch: List[Frame] = []
        for _ in range(_AT_ONCE):
            if not self._splits:
                break
            pieces = self._splits.popleft()
            frame = next(pieces)
            batch.append(frame)
            if frame["kind"] == PIECE:
                self._splits.append(pieces)
            else:
                for waiting in self._behind.pop(frame["id"]):
                    self._add(batch, waiting)
        return batch

    def _add(self, batch: List[Frame], frame: Frame) -> None:
        if frame["kind"] in _ORDERED:
            id_ = frame["id"]
            if id_ in self._behind:
                self._behind[id_].append(frame)
                return
            if len(frame.get("body", b"")) > SPLIT_ABOVE and id_ > 0:  # clients have negative ids and know no pieces
                pieces = self._split(frame)
                self._behind[id_] = []
                self._splits.append(pieces)
                frame = next(pieces)  # the ids of calls have to be seen in their order
        batch.append(frame)

    def _split(self, frame: Frame) -> Iterator[Frame]:
        """Yields the pieces of a frame, and the frame itself with the last part of its body."""
        body = frame["body"]
        piece: Frame = {"kind": PIECE, "id": frame["id"], "bytes": len(body)}
        left = len(body)
        for part in self._cut(body):
            left -= len(part)
            if not left:
                frame["body"] = part
                yield frame
                return
            piece["body"] = part
            yield piece
            piece = {"kind": PIECE, "id": frame["id"]}

    def _cut(self, body: Union[bytes, Parts]) -> Iterator[Any]:
        parts: List[Any] = body.parts if type(body) is Parts else [body]
        taken: List[Any] = []
        room = _PIECE
        for part in parts:
            view = memoryview(part)
            while len(view) >= room:
                taken.append(view[:room])
                yield self._body(taken)
                view, taken, room = view[room:], [], _PIECE
            if view:
                taken.append(view)
                room -= len(view)
        if taken:
            yield self._body(taken)

    def _body(self, taken: List[Any]) -> Any:
        if not self._takes_parts or (len(taken) > 1 and sum(map(len, taken)) <= _COPIED):
            return b"".join(taken)
        return Parts(taken) if len(taken) > 1 else taken[0]


class Join:
    """A body that arrives in pieces."""

    def __init__(self, size: int, dropped: bool) -> None:
        """Makes room for a body of that size, unless it is to be dropped."""
        self._size = size
        self._filled = 0
        self._view = None if dropped else memoryview(memory(size))

    def add(self, body: Any) -> None:
        """Adds a piece. Keeps no part of it.

        Raises:
            ProtocolError: The body is larger than its first piece said.
        """
        if self._filled + len(body) >= self._size:  # the frame itself has at least one byte
            raise ProtocolError(f"pieces of {self._filled + len(body)} bytes, and the first one said {self._size}")
        self._append(body)

    def finish(self, frame: Frame) -> None:
        """Adds the body of the frame itself, and makes the whole the frame's body.

        If it was dropped, the frame has no body, but the field ``dropped``.

        Raises:
            ProtocolError: The body has another size than its first piece said.
        """
        body = frame.get("body", b"")
        if self._filled + len(body) != self._size:
            raise ProtocolError(f"a body of {self._filled + len(body)} bytes, and its first piece said {self._size}")
        self._append(body)
        if self._view is None:
            frame["dropped"] = True
            frame.pop("body", None)
        else:
            frame["body"] = self._view

    def _append(self, body: Any) -> None:
        end = self._filled + len(body)
        if self._view is not None:
            self._view[self._filled : end] = body
        self._filled = end
