"""What the two hellos agreed on."""

from __future__ import annotations

from typing import Any, Tuple


class Terms:
    """What the two hellos agreed on. Before them only this worker's own limits are known.

    Attributes:
        codec: The codec of all bodies, a `Codec`; None before the hellos.
        max_frame: The largest frame that either side may send.
        window: The items and bytes that the host takes of one call before it has granted credit.
        calls: How many calls the host may have open at once.
        requests: How many calls this worker may have open at the host.
    """

    __slots__ = ("calls", "codec", "max_frame", "requests", "window")

    def __init__(self, max_frame: int, calls: int) -> None:
        self.codec: Any = None
        self.max_frame = max_frame
        self.window: Tuple[int, int] = (0, 0)
        self.calls = calls
        self.requests = 0
