"""The codecs by name. A codec turns values into the bodies of frames and back, by the rules of `_values`."""

from __future__ import annotations

from typing import Any, Dict, List


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


_loaded: Dict[str, Codec] = {}


def get_codec(name: str) -> Codec:
    """Returns the codec of that name.

    Raises:
        ValueError: There is none of that name.
        Unavailable: Its library is missing or too old here.
    """
    codec = _loaded.get(name)
    if codec is None:
        if name == "json":
            from ._codec_json import Json

            codec = Json()
        elif name == "msgpack":
            from ._codec_msgpack import Msgpack

            codec = Msgpack()
        else:
            raise ValueError(f"no codec is called {name!r}; there are json and msgpack")
        _loaded[name] = codec
    return codec


def available() -> List[str]:
    """Returns the names of the codecs that work in this interpreter, the faster one first."""
    names = ["json"]
    try:
        get_codec("msgpack")
        names.insert(0, "msgpack")
    except Exception:  # it is missing, or its installation is broken
        pass
    return names
