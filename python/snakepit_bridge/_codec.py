"""The base class of the codecs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Codec(ABC):
    """Turns values into the bodies of frames and back, by the rules of `_values`.

    Any number of threads may use one codec at once. A signal handler that interrupts a method may use the codec, too.

    Attributes:
        name: The codec's name in hello.
    """

    name: str

    @abstractmethod
    def encode(self, value: Any) -> bytes:
        """Returns the body of a value.

        Raises:
            BadValue: The value can't travel. The message names the path to the part that can't.
        """

    @abstractmethod
    def decode(self, data: bytes) -> Any:
        """Returns the value of a whole body. The body's length bounds the time and the memory that this takes.

        Raises:
            BadValue: The body is not exactly one valid value.
        """
