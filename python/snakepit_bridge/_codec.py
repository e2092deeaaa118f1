"""What a codec is. It turns values into the bodies of frames and back, by the rules of `_values`."""

from __future__ import annotations

from typing import Any


class Codec:
    """Encodes and decodes bodies. Any number of threads use one at once, and so may a signal handler that interrupts it.

    Attributes:
        name: How hello calls it.
    """

    name: str

    def encode(self, value: Any) -> bytes:
        """Returns the body. Raises `BadValue`, whose message names the path to what can't travel."""
        raise NotImplementedError

    def decode(self, data: bytes) -> Any:
        """Returns the value of a body, the whole of it. Raises `BadValue`; time and memory are bounded by the body's length."""
        raise NotImplementedError
