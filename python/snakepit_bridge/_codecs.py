"""The codecs by name. A codec whose library is missing is imported only when it is asked for."""

from __future__ import annotations

from typing import Dict, List

from ._codec import Codec

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
