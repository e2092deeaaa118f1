"""The codecs by name. A codec is imported when it is first requested, because its library may be missing."""

from __future__ import annotations

from typing import Dict, List

from ._codec import Codec

_loaded: Dict[str, Codec] = {}


def get_codec(name: str) -> Codec:
    """Returns the codec of that name.

    Raises:
        ValueError: No codec has that name.
        Unavailable: The codec's library is missing, too old or broken.
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
    """Returns the names of the codecs that work in this interpreter, the fastest one first."""
    names = ["json"]
    try:
        get_codec("msgpack")
        names.insert(0, "msgpack")
    except Exception:  # msgpack is missing, or its installation is broken
        pass
    return names
