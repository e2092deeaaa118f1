"""The terms of a connection: what the two hellos have agreed on."""

from __future__ import annotations

from typing import Any, Tuple

from ._memory import keep_pages
from ._pieces import SPLIT_ABOVE


class Terms:
    """The terms of a connection, which the two hellos set. Before them, only this worker's own limits are known.

    Attributes:
        codec: The codec of all bodies, a `Codec`; None before the hellos.
        encode: Its method that encodes a value for this transport.
        max_frame: The largest weight of a frame that either side may send, in bytes.
        window: How many items and bytes of one call the worker may send before the host grants credit.
        max_calls: How many calls the host may have open at once.
        max_host_calls: How many calls this worker may have open at the host.
        pieces: The host takes large bodies in pieces.
        splits: Such a body was made, so the outbox has to split frames.
    """

    __slots__ = ("codec", "encode", "max_calls", "max_frame", "max_host_calls", "pieces", "splits", "window")

    def __init__(self, max_frame: int, max_calls: int) -> None:
        self.codec: Any = None
        self.encode: Any = None
        self.max_frame = max_frame
        self.window: Tuple[int, int] = (0, 0)
        self.max_calls = max_calls
        self.max_host_calls = 0
        self.pieces = False
        self.splits = False

    def large(self, size: int) -> None:
        """Called for each body of more than `LARGE` bytes that is to be sent."""
        keep_pages()
        if self.pieces and size > SPLIT_ABOVE:
            self.splits = True
