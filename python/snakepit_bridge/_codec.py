"""The base class of the codecs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, List, Union


class Parts:
    """A large body in parts, which can be written without being joined. Its length is that of the body in bytes."""

    __slots__ = ("_size", "parts")

    def __init__(self, parts: List[Any]) -> None:
        self.parts = parts
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)


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

    def encode_parts(self, value: Any) -> Union[bytes, Parts]:
        """Returns the body of a value like `encode`, perhaps in parts. Nobody can change these."""
        return self.encode(value)

    @abstractmethod
    def decode(self, data: Union[bytes, bytearray, memoryview]) -> Any:
        """Returns the value of a whole body. It keeps no part of the body.

        The body's length bounds the time and the memory that this takes.

        Raises:
            BadValue: The body is not exactly one valid value.
        """
