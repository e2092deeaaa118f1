"""JSON bodies. Plain values, which most calls have, take a fast path through the C code of the json module."""

from __future__ import annotations

import binascii
import json
import re
import sys
import threading
from itertools import accumulate
from json import encoder as _encoder
from typing import Any, Callable, Dict, List, NoReturn, Tuple, Union

from ._arrays import Array, decoded_array
from ._codec import Codec
from ._errors import BadValue
from ._reduction import check_int
from ._times import Duration, Instant, late_datetime, timedelta
from ._values import CONTAINERS, LARGEST, MAX_DEPTH, SMALLEST, Writer, is_plain, walk

_SCALARS = {type(None), bool, float, str}
_SHALLOW = 64  # levels of nesting that fit on any caller's stack


class Json(Codec):
    """The codec of JSON bodies."""

    name = "json"

    def encode(self, value: Any) -> bytes:
        try:
            type_ = type(value)
            if type_ in _SCALARS or (type_ in CONTAINERS and is_plain(value, _SCALARS, -1, _SHALLOW)):
                return dump(value)
            if type_ is int and SMALLEST <= value <= LARGEST:
                return b"%d" % value
        except (ValueError, RuntimeError):  # NaN, a lone surrogate; a dict that changed; RecursionError
            pass
        writer = _Writer()
        walk(value, writer)
        return writer.body()

    def decode(self, data: Union[bytes, bytearray, memoryview]) -> Any:
        try:
            return _load(bytes(data) if type(data) is memoryview else data)
        except BadValue as exc:
            raise BadValue(f"value: {exc}") from None
        except StopIteration as exc:
            raise BadValue(f"value: not JSON: a value is missing at character {exc.value}") from None
        except UnicodeDecodeError as exc:
            raise BadValue(f"value: bad UTF-8 at byte {exc.start}") from None
        except (ValueError, RecursionError) as exc:
            raise BadValue(f"value: not JSON: {exc}") from None


def _refuse(value: Any) -> NoReturn:
    raise ValueError("changed while it was encoded")


def _c_dump() -> Callable[[Any, int], Any]:
    """Returns one encoder for all values.

    json.JSONEncoder makes a new one for each value. This costs as much as encoding a small value.
    """
    options: Dict[str, Any] = {
        "ensure_ascii": False,
        "allow_nan": False,
        "check_circular": False,
        "separators": (",", ":"),
    }
    slow = json.JSONEncoder(default=_refuse, **options)
    make: Any = getattr(_encoder, "c_make_encoder", None)
    try:
        fast = make(None, _refuse, _encoder.encode_basestring, None, ":", ",", False, False, False)
        if "".join(fast({"a": [1, 2.0, "é"]}, 0)) == '{"a":[1,2.0,"é"]}':
            return fast  # type: ignore[no-any-return]
    except (TypeError, ValueError):
        pass
    return lambda value, _: (slow.encode(value),)


_chunks = _c_dump()
_join = "".join


def dump(value: Any) -> bytes:
    return _join(_chunks(value, 0)).encode()


class _Writer(Writer):
    scalars = _SCALARS
    binary = -1

    def __init__(self) -> None:
        self._parts: List[bytes] = []  # a comma follows every value; end and body drop the last one
        self._ends: List[bytes] = []

    def body(self) -> bytes:
        return b"".join(self._parts[:-1])

    def write_plain(self, value: Any) -> None:
        self._parts += (dump(value), b",")

    def write_special(self, value: Any) -> None:
        type_ = type(value)
        parts: Tuple[bytes, ...]
        if type_ is bytes:
            parts = (b'{"$bytes":"', binascii.b2a_base64(value, newline=False), b'"}')
        elif type_ is float:
            parts = (b'{"$float":"', b"nan" if value != value else b"inf" if value > 0 else b"-inf", b'"}')
        elif type_ is int:
            parts = (b'{"$int":"%s"}' % hex(value).encode(),)
        elif type_ is Duration:
            parts = (b'{"$duration":%d}' % value.nanoseconds,)
        elif type_ is Array:
            facts = dump({"dtype": value.dtype, "shape": value.shape})[:-1]
            parts = (b'{"$array":', facts, b',"data":"', binascii.b2a_base64(value.data, newline=False), b'"}}')
        else:
            parts = (b'{"$time":"', _iso(value).encode(), b'Z"}')
        self._parts += (*parts, b",")

    def begin_list(self, length: int) -> None:
        self._parts.append(b"[")
        self._ends.append(b"]")

    def begin_map(self, value: Dict[str, Any]) -> None:
        tag_like = len(value) == 1 and next(iter(value)).startswith("$")
        self._parts.append(b'{"$map":{' if tag_like else b"{")
        self._ends.append(b"}}" if tag_like else b"}")

    def key(self, key: str) -> None:
        self._parts += (dump(key), b":")

    def end(self) -> None:
        if self._parts[-1] == b",":
            self._parts.pop()
        self._parts += (self._ends.pop(), b",")


def _iso(instant: Any) -> str:
    """Returns the text of an instant without its zone. Its fraction has no zeros at the end."""
    if type(instant) is Instant:
        module = late_datetime()
        whole = module.datetime.fromtimestamp(instant.seconds, module.timezone.utc)
        nanoseconds = instant.nanoseconds
    else:
        whole, nanoseconds = instant, instant.microsecond * 1000
    text: str = whole.replace(tzinfo=None, microsecond=0).isoformat()
    return text + f".{nanoseconds:09}".rstrip("0") if nanoseconds else text


class _Tagged:
    """A map whose one key begins with "$". Inside {"$map": ...} it is not a tag. The outer map is known only later."""

    __slots__ = ("key", "value")

    def __init__(self, key: str, value: Any) -> None:
        self.key = key
        self.value = value


def _unique(pairs: List[Tuple[str, Any]]) -> Any:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise BadValue(f"a map has the key {key!r:.60} twice")
            seen.add(key)
    return value


def _unique_or_tagged(pairs: List[Tuple[str, Any]]) -> Any:
    if len(pairs) == 1 and pairs[0][0][:1] == "$":
        return _Tagged(*pairs[0])
    return _unique(pairs)


def _constant(word: str) -> NoReturn:
    raise BadValue(f"not JSON: {word}")


def _float(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise BadValue(f"{text:.40} is too large for a float")
    return value


def _int(text: str) -> int:
    if len(text) < 19:
        return int(text)
    value = int(text) if len(text) <= 20 else LARGEST + 1
    if not SMALLEST <= value <= LARGEST:
        raise BadValue(f"{text:.40} is an integer beyond 64 bits")
    return value


def _scanners(**options: Any) -> Tuple[Any, Any]:
    """Returns two C scanners of the json module. The second one checks each number."""
    decoder: Any = json.JSONDecoder  # typeshed does not declare scan_once
    checking = decoder(parse_constant=_constant, parse_int=_int, parse_float=_float, **options)
    return decoder(parse_constant=_constant, **options).scan_once, checking.scan_once


_ANY_KEYS = _scanners()
_UNIQUE_KEYS = _scanners(object_pairs_hook=_unique)
_TAGS = _scanners(object_pairs_hook=_unique_or_tagged)

_SPACE = " \t\r\n"
_FEW = 128  # bytes; in a body up to this size, checking every number costs less than a search for those that need it
_SHAPES = bytes(ord("0") if 48 <= byte <= 57 else ord("e") if byte == ord("E") else byte for byte in range(256))
_LONG = b"0" * 19
_PART = 1 << 16  # bytes
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F]|(u[dD][89a-fA-F])|.)", re.DOTALL)


def _load(data: Union[bytes, bytearray]) -> Any:
    text = str(data, "utf-8")
    levels = _levels(data) if len(data) > _SHALLOW else 0
    careful = 1
    if len(data) > _FEW:
        careful = _has_unusual_numbers(data)
    tags = "$" in text and '"$' in text
    if "\\" in text:
        tags = tags or "\\u0024" in text
        if "\\u" in text and any(match[1] for match in _ESCAPE.finditer(text)):
            raise BadValue("text with a lone surrogate, which is not valid UTF-8")
    if tags:
        return _untagged(_scan(_TAGS[careful], text, levels))
    if levels > MAX_DEPTH:
        raise BadValue(f"nested deeper than {MAX_DEPTH} levels")
    if text.find("{", 1) < 0:  # at most one map: with as many entries as colons, no key occurred twice
        value = _scan(_ANY_KEYS[careful], text, levels)
        if type(value) is not dict or len(value) == text.count(":"):
            return value
    return _scan(_UNIQUE_KEYS[careful], text, levels)


def _has_unusual_numbers(data: Union[bytes, bytearray]) -> bool:
    """Reports whether the body may have a number with an exponent or with many digits. It may also find text."""
    for at in range(0, len(data), _PART):
        shapes = data[at : at + _PART + len(_LONG)].translate(_SHAPES)
        if b"0e" in shapes or _LONG in shapes:
            return True
    return False


def _scan(scan: Callable[[str, int], Tuple[Any, int]], text: str, levels: int) -> Any:
    if text[:1] in _SPACE:
        text = text.lstrip(_SPACE)
    if levels > _SHALLOW:
        value, end = _with_room(levels, scan, text)
    else:
        value, end = scan(text, 0)
    if end != len(text) and text[end:].strip(_SPACE):
        raise BadValue(f"not JSON: {text[end:].lstrip(_SPACE)[:20]!r} after the value")
    return value


_room = threading.Lock()


def _with_room(levels: int, scan: Callable[[str, int], Tuple[Any, int]], text: str) -> Tuple[Any, int]:
    """Scans with the recursion limit raised by so many levels, because the scanner's recursion counts against it.

    The C stack has room for these levels.
    """
    with _room:
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(before + levels + 50)
        try:
            return scan(text, 0)
        finally:
            sys.setrecursionlimit(before)


_WIRE_DEPTH = 2 * MAX_DEPTH + 2  # every second map may be an escape, and the innermost value an array
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_NOT_PAIRS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_ROUND = bytes.maketrans(b"[]{}", b"()()")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)


def _levels(data: Union[bytes, bytearray]) -> int:
    """Returns an upper bound of how deep the brackets nest, or 0 if the body is shallow.

    The brackets inside of strings do not count. Methods of bytes, which run in C, remove the strings, and then several
    rounds of brackets that close at once. Few bodies have so many left that they must be counted.

    Raises:
        BadValue: The body nests deeper than any valid one.
    """
    if _finds(data, b"[", _finds(data, b"{", _SHALLOW)) >= 0:
        return 0
    if b"\\" in data:
        brackets = data.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NOT_BRACKETS)
    else:
        brackets = data.translate(None, _NOT_BRACKETS)
    brackets = brackets.replace(b'""', b"")
    if b'"' in brackets:  # there are strings with brackets
        brackets = _STRING.sub(b"", data).translate(None, _NOT_PAIRS)
    brackets = brackets.translate(_ROUND)
    for taken in range(8):
        if brackets.count(b"(") + taken <= _SHALLOW:
            return 0
        brackets = brackets.replace(b"()", b"")
    deepest = 8 + max(
        accumulate(map((1, -1).__getitem__, brackets.translate(bytes.maketrans(b"()", b"\0\1")))), default=0
    )
    if deepest > _WIRE_DEPTH:
        raise BadValue(f"nested deeper than {MAX_DEPTH} levels")
    return deepest


def _finds(data: Union[bytes, bytearray], byte: bytes, most: int) -> int:
    """Returns how many fewer than ``most`` times a byte occurs, or a negative number. This is faster than to count."""
    at = data.find(byte)
    while at >= 0 and most >= 0:
        most -= 1
        at = data.find(byte, at + 1)
    return most


def _untagged(root: Any) -> Any:
    """Replaces the tags by their values, from the outside in."""
    holder = [root]
    level: List[Any] = [holder]
    for _ in range(MAX_DEPTH + 1):
        inner: List[Any] = []
        for container in level:
            for place, value in enumerate(container) if type(container) is list else container.items():
                if type(value) is _Tagged:
                    container[place] = value = _meaning(value)
                if type(value) is dict or type(value) is list:
                    inner.append(value)
        if not inner:
            return holder[0]
        level = inner
    raise BadValue(f"nested deeper than {MAX_DEPTH} levels")


def _meaning(tagged: _Tagged) -> Any:
    key, value = tagged.key, tagged.value
    if key == "$map":
        if type(value) is _Tagged:
            return {value.key: value.value}
        if type(value) is dict:
            return value
    elif key == "$bytes":
        return _bytes(value)
    elif key == "$float":
        if value in ("nan", "inf", "-inf"):
            return float(value)
    elif key == "$time":
        return _time(value)
    elif key == "$int":
        return _large_int(value)
    elif key == "$duration":
        if type(value) is int and -(2**63) <= value < 2**63:
            return timedelta(value)
    elif key == "$array":
        if type(value) is dict and value.keys() == {"dtype", "shape", "data"}:
            return decoded_array(value["dtype"], value["shape"], _bytes(value["data"]))
    else:
        raise BadValue(f"a map with the one key {key!r:.60}, which is not a known tag")
    raise BadValue(f"a {key} of something else")


_HEX = re.compile(r"-?0x[0-9a-f]+", re.ASCII)


def _large_int(text: Any) -> int:
    if type(text) is not str or not _HEX.fullmatch(text):
        raise BadValue(f"{text!r:.60} is not an integer such as '-0x1f'")
    value = int(text, 16)
    check_int(value)
    return value


_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


_STRICT = {"strict_mode": True} if sys.version_info >= (3, 11) else {}


def _bytes(text: Any) -> bytes:
    if type(text) is str and len(text) % 4 == 0:
        data = text.encode()
        if _STRICT:
            try:
                return binascii.a2b_base64(data, **_STRICT)
            except binascii.Error:
                pass
        padding = data.translate(None, _ALPHABET)
        if padding in (b"", b"=", b"==") and data.endswith(padding):
            return binascii.a2b_base64(data)
    raise BadValue("bytes that are not base64 of the standard alphabet, padded")


_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)


def _time(text: Any) -> Any:
    match = _RFC3339.fullmatch(text) if type(text) is str else None
    if match is None:
        raise BadValue(f"{text!r:.60} is not a timestamp such as '2026-01-02T03:04:05.678901Z'")
    *whole, fraction = match.groups()
    micros = int((fraction or "").ljust(6, "0")[:6])
    module = late_datetime()
    try:
        return module.datetime(*map(int, whole), micros, tzinfo=module.timezone.utc)
    except ValueError as exc:
        raise BadValue(f"{text!r} is not a timestamp: {exc}") from None
